#!/usr/bin/env bash
# Train, measure and trace both pairs on a machine with a GPU, one step at a time.
#
#   bash benchmarks/papers/run.sh STEP...      # in the repository's root
#
# A step whose results are there is skipped, so that a run that was cut off goes on where it was.
# Set UPLOAD (what benchmarks.papers.data compressed), WORK (room for 3 GB) and RESULTS.
# Minutes of training: MINUTES_GPT, MINUTES_T5 for the targets, MINUTES_DRAFTS for each draft;
# drafts of a pair train side by side. TRAIN, ALPHAS and WALLTIME hold further options of those
# scripts. A trial on a CPU:
#
#   MINUTES_GPT=0.05 MINUTES_T5=0.05 MINUTES_DRAFTS=0.05 COMPILE= \
#   TRAIN="--tiny --batch-tokens 1024 --held-out-tokens 1024" \
#   ALPHAS="--tokens 100 --new-tokens 12 --batch 8" \
#   WALLTIME="--prompts 1 --new-tokens 8 --gammas 1 3 --device cpu" \
#   bash benchmarks/papers/run.sh train-gpt train-t5 alphas-gpt alphas-t5 walltime-gpt walltime-t5 trace
set -euo pipefail
WORK=${WORK:-/tmp/papers-run}
UPLOAD=${UPLOAD:-/tmp/papers-data/upload}
RESULTS=${RESULTS:-$WORK/results}
MINUTES_GPT=${MINUTES_GPT:-4}
MINUTES_T5=${MINUTES_T5:-3.5}
MINUTES_DRAFTS=${MINUTES_DRAFTS:-1.5}
PYTHON=${PYTHON:-python3}
COMPILE=${COMPILE---compile}
TRAIN=${TRAIN:-}
ALPHAS=${ALPHAS:-}
WALLTIME=${WALLTIME:-}
export PYTHONPATH=src:.${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
mkdir -p "$WORK/data" "$WORK/models" "$RESULTS"

log() { echo "== $(date +%T) $*"; }

unpack() { # pair
  [ -e "$WORK/data/$1/.unpacked" ] && return
  $PYTHON -c "import sys; from pathlib import Path; from benchmarks.papers.packed import decompress
decompress(Path(sys.argv[1]), Path(sys.argv[2]))" "$UPLOAD/$1" "$WORK/data/$1"
  touch "$WORK/data/$1/.unpacked"
}

count_tables() { # pair
  $PYTHON -c "import sys; from pathlib import Path; from benchmarks.papers.trained import ngram_table
for name in ('unigram', 'bigram'): ngram_table(Path(sys.argv[1]), sys.argv[2], name)" "$WORK/data" "$1"
}

train() { # pair name minutes options...
  local pair=$1 name=$2 minutes=$3
  shift 3
  [ -e "$WORK/models/$pair/$name/training.json" ] && return
  log "train $pair $name for $minutes minutes"
  # shellcheck disable=SC2086
  $PYTHON -m benchmarks.papers.train "$pair" "$name" --data "$WORK/data" --out "$WORK/models" \
    --minutes "$minutes" "$@" $TRAIN 2>&1 | sed -u "s/^/$pair $name: /"
  cp "$WORK/models/$pair/$name/training.json" "$RESULTS/training_${pair}_$name.json"
}

measure() { # result module options...
  [ -e "$RESULTS/$1" ] && return
  log "measure $1"
  local out=$RESULTS/$1 module=$2
  shift 2
  $PYTHON -m "benchmarks.papers.$module" "$@" --data "$WORK/data" --models "$WORK/models" \
    --out "$out"
}

side_by_side() { # waits for all, fails if one failed
  local failed=0 job
  for job in "$@"; do wait "$job" || failed=1; done
  return $failed
}

train_gpt() {
  unpack gpt
  count_tables gpt &
  local table=$!
  train gpt target "$MINUTES_GPT" $COMPILE
  train gpt draft "$MINUTES_DRAFTS" $COMPILE & local a=$!
  train gpt wide "$MINUTES_DRAFTS" $COMPILE & local b=$!
  train gpt deep "$MINUTES_DRAFTS" $COMPILE & local c=$!
  side_by_side $table $a $b $c
}

train_t5() {
  unpack t5
  count_tables t5 &
  local table=$!
  # The target diverges with a rate of 0.001, the drafts with 0.002.
  train t5 target "$MINUTES_T5" --batch-tokens 16384 --rate 0.0003
  train t5 base "$MINUTES_DRAFTS" --batch-tokens 16384 --rate 0.0005 & local a=$!
  train t5 draft "$MINUTES_DRAFTS" --batch-tokens 16384 --rate 0.0005 & local b=$!
  side_by_side $table $a $b
}

for step in "$@"; do
  log "$step"
  case $step in
    unpack) unpack gpt; unpack t5 ;;
    train-gpt) train_gpt ;;
    train-t5) train_t5 ;;
    # shellcheck disable=SC2086
    alphas-gpt) measure papers_gpt.json alphas gpt $ALPHAS ;;
    # shellcheck disable=SC2086
    alphas-t5) measure papers_t5.json alphas t5 $ALPHAS ;;
    # shellcheck disable=SC2086
    walltime-gpt) measure papers_gpt_walltime.json walltime gpt --alphas "$RESULTS/papers_gpt.json" $WALLTIME ;;
    # shellcheck disable=SC2086
    walltime-t5) measure papers_t5_walltime.json walltime t5 --alphas "$RESULTS/papers_t5.json" $WALLTIME ;;
    trace) measure papers_trace.json trace ;;
    *) echo "unknown step $step" >&2; exit 2 ;;
  esac
done
log "done"
