// The playground: a conversation, and the same prompt with speculation off beside it.

import { Panel, times } from "/static/panel.js";
import { ApiError, runChat } from "/static/stream.js";

const byId = (id) => document.getElementById(id);
const ORIGINS = {
  kept: "drafted and kept",
  residual: "the target's, in place of a draft",
  bonus: "the target's own",
};

let messages = [];
let stopping = null;

const keyOf = () => byId("key").value.trim();

/** What the form asks, as a request. */
function requestOf(turns, speculation) {
  return {
    messages: turns,
    temperature: byId("temperature").valueAsNumber,
    max_tokens: byId("longest").valueAsNumber,
    seed: byId("seed").valueAsNumber,
    speculation: { ...speculation, statistics: true, origins: true },
  };
}

const asChosen = () => (byId("drafting").value ? { draft: byId("drafting").value } : {});

/** Adds pieces to a text, each in the colour of where it came from. */
function writer(place) {
  return (pieces) => {
    for (const piece of pieces) {
      const token = document.createElement("span");
      token.className = `token ${piece.origin}`;
      token.title = `${ORIGINS[piece.origin]}, round ${piece.round}`;
      if (piece.rejected) token.title += `, not ${JSON.stringify(piece.rejected)}`;
      token.textContent = piece.text;
      place.append(token);
    }
    const log = byId("log");
    if (pieces.length && log.contains(place)) log.scrollTop = log.scrollHeight;
  };
}

/** Tokens per second after the first text, so that reading the prompt is not counted. */
function paceOf(done) {
  const span = done.seconds - (done.firstSeconds ?? 0);
  return span > 0 ? (done.usage.completion_tokens - 1) / span : null;
}

function toldOf(done) {
  const { completion_tokens: tokens, speculation } = done.usage;
  const perPass = speculation.tokens_per_pass;
  const parts = [`${tokens} tokens in ${done.seconds.toFixed(2)} s`];
  const pace = paceOf(done);
  if (pace) parts.push(`${pace.toFixed(1)} per second`);
  if (perPass) parts.push(`${perPass.toFixed(2)} per pass`);
  return `${parts.join(", ")}.`;
}

function addTurn(role, text) {
  byId("empty")?.remove();
  const turn = document.createElement("article");
  turn.className = "turn";
  const title = document.createElement("h3");
  title.textContent = role === "user" ? "You" : "Model";
  const body = document.createElement("p");
  body.className = "text";
  body.textContent = text;
  turn.append(title, body);
  byId("log").append(turn);
  byId("log").scrollTop = byId("log").scrollHeight;
  return body;
}

/** Does one thing at a time; tells what went wrong, and whether it was stopped. */
async function busy(word, work) {
  if (stopping) return;
  stopping = new AbortController();
  setBusy(true);
  byId("problem").textContent = "";
  byId("status").textContent = word;
  try {
    byId("status").textContent = (await work(stopping.signal)) ?? "";
  } catch (error) {
    byId("status").textContent = stopping.signal.aborted ? "Stopped." : "";
    if (!stopping.signal.aborted) byId("problem").textContent = problem(error);
  } finally {
    stopping = null;
    setBusy(false);
  }
}

function problem(error) {
  if (error instanceof ApiError) return `Refused: ${error.message}.`;
  return `That did not work: ${error.message}.`;
}

function setBusy(isBusy) {
  for (const id of ["send", "compare", "clear"]) byId(id).disabled = isBusy;
  byId("stop").disabled = !isBusy;
  byId("log").setAttribute("aria-busy", String(isBusy));
}

async function send(signal) {
  const turns = [...messages, { role: "user", content: byId("prompt").value }];
  addTurn("user", byId("prompt").value);
  const place = addTurn("assistant", "");
  const done = await runChat(requestOf(turns, asChosen()), keyOf(), signal, writer(place));
  messages = [...turns, { role: "assistant", content: done.text }];
  const told = document.createElement("p");
  told.className = "told";
  told.textContent = toldOf(done);
  place.after(told);
  byId("prompt").value = "";
  byId("prompt").focus();
  return `Answered: ${toldOf(done)}`;
}

async function compare(signal) {
  const turns = [...messages, { role: "user", content: byId("prompt").value }];
  for (const name of ["with-text", "with-told", "without-text", "without-told", "verdict"]) {
    byId(name).replaceChildren();
  }
  byId("comparison").hidden = false;
  byId("comparison").scrollIntoView({ block: "nearest" });
  const run = async (side, speculation) => {
    const write = writer(byId(`${side}-text`));
    const done = await runChat(requestOf(turns, speculation), keyOf(), signal, write);
    byId(`${side}-told`).textContent = toldOf(done);
    return done;
  };
  // One after the other: together they would take each other's time.
  const fast = await run("with", asChosen());
  const plain = await run("without", { gamma: 0 });
  const speedup = paceOf(fast) && paceOf(plain) ? paceOf(fast) / paceOf(plain) : null;
  byId("observed").textContent = times(speedup);
  const same = fast.text === plain.text ? "The texts are identical" : "THE TEXTS DIFFER";
  byId("verdict").textContent = `${same}: ${fast.seconds.toFixed(2)} s with speculation, ` +
    `${plain.seconds.toFixed(2)} s without; ${times(speedup)} the tokens per second.`;
  return "Compared.";
}

function start(word, work) {
  if (byId("ask").reportValidity()) busy(word, work);
}

function stop() {
  stopping?.abort();
}

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  start("Answering…", send);
});
byId("compare").addEventListener("click", () => start("Comparing…", compare));
byId("stop").addEventListener("click", stop);
byId("clear").addEventListener("click", () => {
  messages = [];
  byId("log").replaceChildren();
  byId("comparison").hidden = true;
  byId("status").textContent = "A new conversation.";
  byId("prompt").focus();
});
byId("ask").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    start("Answering…", send);
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
});

new Panel(keyOf).run();
