// A chat as the server streams it, and where each piece of its text came from.

const BROKEN = "\uFFFD";

export class ApiError extends Error {}

/** The data of server-sent events, as they come; [DONE] ends it. */
export async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new ApiError("the stream ended before its end: is the server still there?");
    const frames = (rest + value).split("\n\n");
    rest = frames.pop();
    for (const frame of frames) {
      const line = frame.split("\n").find((one) => one.startsWith("data: "));
      if (line === undefined) continue;
      const data = line.slice(6);
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new ApiError(event.error.message);
      yield event;
    }
  }
}

/** Cuts a text into the tokens that it was made of. The pieces, put together, are the text. */
export class Aligner {
  #text = "";
  #tokens = [];

  /** Takes text and tokens, and gives the pieces that are certain. A text may come later than its tokens. */
  push(text, tokens) {
    this.#text += text;
    this.#tokens.push(...tokens);
    const pieces = [];
    while (this.#tokens.length > 0 && this.#text !== "") {
      const count = this.#next(pieces);
      if (count === 0) break;
      this.#tokens.splice(0, count);
    }
    return pieces;
  }

  /** What is left when nothing comes any more. */
  end() {
    const pieces = this.push("", []);
    if (this.#text !== "") {
      const token = this.#tokens[0] ?? { origin: "bonus", round: 0, rejected: null };
      pieces.push({ ...token, text: this.#text });
    }
    this.#text = "";
    this.#tokens = [];
    return pieces;
  }

  /** Adds the next piece, if it is certain; how many tokens it was made of. */
  #next(pieces) {
    const head = this.#tokens[0];
    for (const spelled of [head.token, head.token.trimStart()]) {
      if (spelled !== "" && this.#text.startsWith(spelled)) {
        this.#cut(pieces, head, spelled.length);
        return 1;
      }
    }
    if (head.token.includes(BROKEN)) return this.#character(pieces);
    // Its text may still be held back; else it has none, as special tokens have.
    return head.token.startsWith(this.#text) ? 0 : 1;
  }

  /** A character that several tokens share. */
  #character(pieces) {
    const count = this.#tokens.findIndex((one) => !one.token.includes(BROKEN));
    if (count < 0) return 0;
    const end = this.#text.indexOf(this.#tokens[count].token);
    if (end < 0) return 0;
    if (end > 0) this.#cut(pieces, this.#tokens[0], end);
    return count;
  }

  #cut(pieces, token, length) {
    pieces.push({ ...token, text: this.#text.slice(0, length) });
    this.#text = this.#text.slice(length);
  }
}

/**
 * Runs one chat; `onPieces` gets pieces {text, origin, round, rejected} as they come.
 * Gives {text, usage, seconds, firstSeconds}, the latter from its beginning to its first text.
 */
export async function runChat(body, key, signal, onPieces) {
  const started = performance.now();
  const headers = { "Content-Type": "application/json" };
  if (key) headers.Authorization = `Bearer ${key}`;
  const response = await fetch("/v1/chat/completions", {
    method: "POST", headers, signal, body: JSON.stringify({
      ...body, stream: true, stream_options: { include_usage: true },
    }),
  });
  if (!response.ok) throw new ApiError(await problemOf(response));
  const aligner = new Aligner();
  const done = { text: "", usage: null, seconds: 0, firstSeconds: null };
  for await (const event of eventsOf(response)) {
    if (event.usage) done.usage = event.usage;
    for (const choice of event.choices) {
      const text = choice.delta.content ?? "";
      if (text !== "") done.firstSeconds ??= (performance.now() - started) / 1000;
      done.text += text;
      onPieces(aligner.push(text, choice.speculation ?? []));
    }
  }
  onPieces(aligner.end());
  done.seconds = (performance.now() - started) / 1000;
  return done;
}

/** Why a request was refused. */
export async function problemOf(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `the server answered ${response.status}`;
  }
}
