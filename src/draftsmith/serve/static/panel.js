// The live panel: what the server counts, over the last minute or since its start.

const WINDOW_MS = 60_000;
const EVERY_MS = 1000;

const byId = (id) => document.getElementById(id);
const DASH = "–";
const fixed = (value, digits) => (value === null || !Number.isFinite(value) ? DASH : value.toFixed(digits));
export const times = (value) => (value === null || !Number.isFinite(value) ? DASH : `${value.toFixed(2)}×`);
const ratio = (a, b) => (b > 0 ? a / b : null);
const percent = (share) => {
  if (share === null) return DASH;
  return share > 0 && share < 0.01 ? "<1 %" : `${Math.round(100 * share)} %`;
};

/** Counts that came between two looks. */
function between(now, before) {
  const minus = (a, b = []) => a.map((value, place) => value - (b[place] ?? 0));
  return {
    tokens: now.num_tokens - before.num_tokens,
    rounds: now.num_rounds - before.num_rounds,
    drafted: minus(now.drafted_per_position, before.drafted_per_position),
    tested: minus(now.tested_per_position, before.tested_per_position),
    accepted: minus(now.accepted_per_position, before.accepted_per_position),
    lengths: minus(now.rounds_by_gamma, before.rounds_by_gamma),
    spent: now.ledger ? now.ledger.spent_s - (before.ledger?.spent_s ?? 0) : 0,
    plain: now.ledger ? now.ledger.plain_s - (before.ledger?.plain_s ?? 0) : 0,
  };
}

const NOTHING = {
  num_tokens: 0, num_rounds: 0, drafted_per_position: [], tested_per_position: [],
  accepted_per_position: [], rounds_by_gamma: [], ledger: null,
};

const sum = (values) => values.reduce((total, value) => total + value, 0);

export class Panel {
  #looks = [];
  #keyOf;

  constructor(keyOf) {
    this.#keyOf = keyOf;
  }

  /** Looks every second, while the page is seen. */
  async run() {
    for (;;) {
      if (!document.hidden) await this.look();
      await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
    }
  }

  async look() {
    const key = this.#keyOf();
    try {
      const response = await fetch("/stats", key ? { headers: { Authorization: `Bearer ${key}` } } : {});
      if (response.status === 401) return this.#say("Give an API key to see what the server does.");
      if (!response.ok) return this.#say(`The server answers ${response.status}.`);
      this.#show(await response.json(), performance.now());
    } catch {
      this.#say("The server does not answer.");
    }
  }

  #say(text) {
    if (byId("span").textContent !== text) byId("span").textContent = text;
  }

  #show(now, at) {
    // A server that was started anew counts from 0 again.
    if (this.#looks.length && now.num_rounds < this.#looks.at(-1).now.num_rounds) this.#looks = [];
    this.#looks.push({ now, at });
    while (this.#looks[0].at < at - WINDOW_MS) this.#looks.shift();
    const recent = between(now, this.#looks[0].now);
    const isLive = recent.rounds > 0;
    const counts = isLive ? recent : between(now, NOTHING);
    this.#say(isLive ? "Over the last minute." : "Since the server was started.");
    const gammas = counts.lengths.map((count, gamma) => count * gamma);
    byId("tokens-per-pass").textContent = fixed(ratio(counts.tokens, counts.rounds), 2);
    byId("kept-share").textContent = percent(ratio(sum(counts.accepted), sum(counts.drafted)));
    byId("gamma").textContent = fixed(ratio(sum(gammas), counts.rounds), 2);
    byId("predicted").textContent = times(ratio(counts.plain, counts.spent));
    byId("pace").textContent = fixed(this.#pace(now, at), 1);
    byId("running").textContent = `${now.num_running} of ${now.max_batch_size}`;
    byId("waiting").textContent = `${now.num_waiting} of ${now.max_waiting}`;
    const { num_held: held, num_kept: kept, limit, num_preemptions: preemptions } = now.cache;
    byId("held").textContent = limit === null ? `${held}` : `${held} of ${limit}`;
    byId("kept-tokens").textContent = `${kept}`;
    byId("recalled").textContent = percent(ratio(now.cache.num_recalled, now.cache.num_prompt_tokens));
    byId("preemptions").textContent = `${preemptions}`;
    byId("served").textContent = served(now);
    const shares = counts.tested.map((count, place) => ratio(counts.accepted[place] ?? 0, count));
    const tested = shares.map((share, place) => [place + 1, share]).filter(([, share]) => share !== null);
    fill("positions", tested, "No drafts.");
    const lengths = counts.lengths.map((count, gamma) => [gamma, ratio(count, counts.rounds)]);
    fill("lengths", lengths.filter(([, share]) => share > 0), "No rounds.");
  }

  /** Tokens per second over the last few looks. */
  #pace(now, at) {
    const before = this.#looks.at(-4) ?? this.#looks[0];
    return ratio(now.num_tokens - before.now.num_tokens, (at - before.at) / 1000);
  }
}

function served(now) {
  const gamma = now.gamma === 0 ? "" : `, gamma ${now.gamma}`;
  return `${now.model}, drafts: ${now.draft ?? "none"}${gamma}`;
}

/** Rows of a name and a share, as bars with their numbers beside them. */
function fill(id, rows, nothing) {
  const body = byId(id);
  while (body.rows.length > Math.max(rows.length, 1)) body.deleteRow(-1);
  if (rows.length === 0) {
    const cell = document.createElement("td");
    cell.colSpan = 2;
    cell.textContent = nothing;
    body.rows[0].replaceChildren(cell);
    return;
  }
  rows.forEach(([name, share], place) => {
    const row = body.rows[place] ?? body.insertRow();
    if (row.children.length !== 2) row.replaceChildren(...emptyRow());
    row.children[0].textContent = name;
    const [bar, number] = row.children[1].firstChild.children;
    bar.firstChild.style.width = `${100 * (share ?? 0)}%`;
    number.textContent = percent(share);
  });
}

function emptyRow() {
  const head = document.createElement("th");
  head.scope = "row";
  const cell = document.createElement("td");
  const share = document.createElement("div");
  share.className = "share";
  const bar = document.createElement("span");
  bar.className = "bar";
  bar.setAttribute("aria-hidden", "true");
  bar.append(document.createElement("i"));
  share.append(bar, document.createElement("span"));
  cell.append(share);
  return [head, cell];
}
