"use strict";
// What is asked, from the page itself; what models and people wrote is shown as text, never as markup.
const sheet = JSON.parse(document.getElementById("sheet").textContent);
const part = (id) => document.getElementById(id);
const served = location.protocol.startsWith("http");

let rater = "";
let given = new Map(); // question -> judgement
let unsent = new Map(); // question -> judgement, or null where it was undone
let mine = []; // questions of this rater, in their order
let past = []; // those that were answered in this sitting, for undo
let current = null;
let shown = [];
let named = []; // places, best first
let since = 0;
let spent = 0;

const place = (what) => `trimtab:${sheet.key}:${rater}:${what}`;
const kept = (what, fallback) => {
  try { return JSON.parse(localStorage.getItem(place(what))) ?? fallback; } catch { return fallback; }
};
const keep = () => {
  try {
    localStorage.setItem(place("given"), JSON.stringify([...given.values()]));
    localStorage.setItem(place("unsent"), JSON.stringify([...unsent]));
    return true;
  } catch (error) {
    if (!served) problem(`This browser keeps nothing (${error.name}): save the answers as a file before you close it.`);
    return false;
  }
};

function problem(words) {
  part("problem").textContent = words;
  part("problem").hidden = !words;
}

// The order on the screen is one of the rater and the question: a reload shows the same.
function shuffled(count, seed) {
  let state = 2166136261;
  for (const letter of seed) state = Math.imul(state ^ letter.codePointAt(0), 16777619);
  const random = () => { // mulberry32
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
  const order = [...Array(count).keys()];
  for (let last = count - 1; last > 0; last -= 1) {
    const other = Math.floor(random() * (last + 1));
    [order[last], order[other]] = [order[other], order[last]];
  }
  return order;
}

function element(tag, kind, words) {
  const made = document.createElement(tag);
  made.className = kind;
  if (words !== undefined) made.textContent = words;
  return made;
}

function text(words) {
  return words.trim() ? element("div", "text", words) : element("div", "text empty", "(empty)");
}

async function begin(name) {
  rater = name;
  let settled = [];
  if (served) {
    const answer = await fetch(`answers/${encodeURIComponent(rater)}`);
    if (!answer.ok) throw new Error((await answer.json()).error);
    const there = await answer.json();
    given = new Map(there.judgements.map((one) => [one.question, one]));
    settled = there.settled;
    unsent = new Map(kept("unsent", []));
    for (const [question, judgement] of unsent) judgement ? given.set(question, judgement) : given.delete(question);
  } else {
    given = new Map(kept("given", []).map((one) => [one.question, one]));
  }
  mine = sheet.questions.filter((question) => given.has(question.id) || !settled.includes(question.id));
  past = mine.filter((question) => given.has(question.id)).map((question) => question.id);
  history.replaceState(null, "", `#${encodeURIComponent(rater)}`);
  part("who").textContent = rater;
  part("begin").hidden = true;
  send();
  next();
}

function next() {
  const left = mine.filter((question) => !given.has(question.id));
  part("bar").max = mine.length || 1;
  part("bar").value = mine.length - left.length;
  part("count").textContent = `${mine.length - left.length} of ${mine.length}`;
  part("undo").disabled = !past.length;
  part("asking").hidden = !left.length;
  part("end").hidden = left.length > 0;
  part("keys").hidden = false;
  for (const id of ["tie", "skip", "numbers"]) part(id).hidden = !left.length;
  current = left[0] ?? null;
  if (current) show(); else finish();
}

function show() {
  named = [];
  shown = shuffled(current.answers.length, `${rater} ${current.id}`);
  part("prompt").replaceChildren(...current.prompt.map(([role, words]) => {
    const turn = element("div", "turn");
    turn.append(element("span", "role", role), text(words));
    return turn;
  }));
  part("answers").replaceChildren(...shown.map((answer, number) => {
    const button = element("button", "answer");
    button.append(element("kbd", "", String(number + 1)), text(current.answers[answer]));
    button.addEventListener("click", () => choose(number));
    return button;
  }));
  part("numbers").replaceChildren(...shown.map((_, number) => { // below, where the answers are longer than the screen
    const button = element("button", "");
    button.append(element("kbd", "", String(number + 1)));
    button.addEventListener("click", () => choose(number));
    return button;
  }));
  part("reasoning").hidden = !sheet.reasons;
  part("reason").value = "";
  document.activeElement?.blur();
  scrollTo(0, 0);
  spent = 0;
  since = performance.now();
}

function choose(number) {
  const answer = shown[number];
  if (!current || answer === undefined || named.includes(answer)) return;
  named.push(answer);
  const wanted = Math.min(sheet.ranked, current.answers.length - 1);
  if (named.length >= wanted) return judge("ranked");
  const button = part("answers").children[number];
  button.classList.add("named");
  button.querySelector("kbd").textContent = `#${named.length}`;
  part("undo").disabled = false;
}

function judge(verdict) {
  if (!current) return;
  const seconds = (spent + (document.hidden ? 0 : performance.now() - since)) / 1000;
  const judgement = {
    question: current.id, rater, verdict, order: verdict === "ranked" ? named : [], shown,
    seconds: Math.round(seconds * 100) / 100, reason: part("reason").value.trim(), at: new Date().toISOString(),
  };
  given.set(current.id, judgement);
  past.push(current.id);
  if (served) unsent.set(current.id, judgement);
  keep();
  send();
  next();
}

function undo() {
  if (named.length) return next(); // takes back the names of a ranking that is not finished
  const question = past.pop();
  if (question === undefined) return;
  given.delete(question);
  if (served) unsent.set(question, null);
  keep();
  send();
  mine = [...mine.filter((one) => one.id === question), ...mine.filter((one) => one.id !== question)];
  next();
}

let sending = false;
async function send() {
  if (!served || sending || !unsent.size) return;
  sending = true;
  const batch = new Map(unsent);
  try {
    const answer = await fetch(`answers/${encodeURIComponent(rater)}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({
        judgements: [...batch.values()].filter((one) => one),
        undone: [...batch].filter(([, one]) => !one).map(([question]) => question),
      }),
    });
    if (!answer.ok) throw new Error((await answer.json()).error);
    for (const [question, judgement] of batch) if (unsent.get(question) === judgement) unsent.delete(question);
    keep();
    problem("");
    part("kept").textContent = "saved";
  } catch (error) {
    part("kept").textContent = "";
    problem(`Not saved yet: ${error.message}. It is tried again; do not close this page.`);
    setTimeout(send, 2000);
    return;
  } finally {
    sending = false;
  }
  if (unsent.size) send();
  else if (!current) finish();
}

function finish() {
  part("next").textContent = served
    ? (unsent.size ? "The last answers are being saved." : "Every answer is saved. You can close this page.")
    : "Save the file, and give it to who has sent you this page.";
  part("download").hidden = served;
  if (served) return;
  const said = JSON.stringify({ rater, key: sheet.key, judgements: [...given.values()] }, null, 1);
  part("download").href = URL.createObjectURL(new Blob([said], { type: "application/json" }));
  part("download").download = `${rater}.json`;
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) spent += performance.now() - since;
  else since = performance.now();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") return document.activeElement?.blur();
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || !rater) return;
  if (["INPUT", "TEXTAREA"].includes(event.target.tagName)) return;
  const action = { t: () => judge("tie"), s: () => judge("skip"), u: undo }[event.key];
  if (action) action();
  else if (/^[1-9]$/.test(event.key)) choose(Number(event.key) - 1);
  else return;
  event.preventDefault();
});
part("tie").addEventListener("click", () => judge("tie"));
part("skip").addEventListener("click", () => judge("skip"));
part("undo").addEventListener("click", undo);
part("begin").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = part("rater").value.trim();
  if (name) begin(name).catch((error) => problem(`It cannot begin: ${error.message}`));
});
const before = decodeURIComponent(location.hash.slice(1));
if (before) begin(before).catch((error) => problem(`It cannot begin: ${error.message}`));
else part("rater").focus();
