// What does a rater see and press? Text reaches the page through textContent alone.
"use strict";

const find = (id) => document.getElementById(id);
const WORDS = ["not at all", "hardly", "in part", "mostly", "fully"];

let rater = "";
let standing = null; // what the server answered last
let sent = []; // what was rated on this page, so that an undo shows it again
let sending = null;
let busy = false;

function scale(side) {
  const shift = side === "b" ? "Shift+" : "";
  WORDS.forEach((word, i) => {
    const label = document.createElement("label");
    const radio = document.createElement("input");
    const shown = document.createElement("span");
    radio.type = "radio";
    radio.name = side;
    radio.value = String(i + 1);
    radio.setAttribute("aria-label", `${i + 1}, ${word}`);
    radio.setAttribute("aria-keyshortcuts", `${shift}${i + 1}`);
    shown.textContent = String(i + 1);
    shown.title = word;
    label.append(radio, shown);
    find(`scale-${side}`).append(label);
  });
}

function tell(sentence) {
  find("message").textContent = sentence;
}

async function post(what, body) {
  if (busy) return;
  busy = true;
  document.body.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(`api/${what}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    const heard = await answer.json();
    if (!answer.ok) {
      tell(heard.error);
      return;
    }
    tell("");
    show(heard);
  } catch {
    tell("The server does not answer. What was sent before is kept: start it again, open the new "
      + "address and give the same name.");
  } finally {
    busy = false;
    document.body.removeAttribute("aria-busy");
  }
}

// What was said of the item that is shown again, if it was said on this page.
function moved(steps) {
  if (steps === 1 && sending !== null) sent.push(sending);
  const before = steps === -1 ? sent.pop() : undefined;
  if (Math.abs(steps) > 1) sent = []; // rated elsewhere too
  sending = null;
  return before;
}

function show(heard) {
  const before = moved(heard.done - (standing?.done ?? heard.done));
  standing = heard;
  rater = heard.rater;
  history.replaceState(null, "", `#${encodeURIComponent(rater)}`);
  const showing = heard.showing;
  find("join").hidden = true;
  find("help").hidden = showing === null;
  find("standing").hidden = false;
  find("rate").hidden = showing === null;
  find("finished").hidden = showing !== null;
  find("who").textContent = rater;
  const place = Math.min(heard.done + 1, heard.of);
  find("progress").textContent = showing === null ? `${heard.of} rated` : `${place} of ${heard.of}`;
  find("bar").max = heard.of;
  find("bar").value = heard.done;
  find("undo").disabled = heard.last === null;
  if (showing === null) {
    find("thanks").focus();
    return;
  }
  for (const [id, text] of [["prompt", showing.prompt], ["text-a", showing.a], ["text-b", showing.b]]) {
    const empty = text.trim() === "";
    find(id).textContent = empty ? "(empty)" : text;
    find(id).classList.toggle("quiet", empty);
    find(id).scrollTop = 0;
  }
  find("rate").reset();
  if (before) {
    for (const name of ["a", "b", "prefer"]) choose(name, before[name]);
    find("note").value = before.note;
  }
  find("asked").focus();
  window.scrollTo(0, 0);
}

function chosen(name) {
  return find("rate").querySelector(`input[name="${name}"]:checked`)?.value;
}

function choose(name, value) {
  for (const radio of find("rate").querySelectorAll(`input[name="${name}"]`)) {
    if (radio.value === String(value)) {
      radio.checked = true;
      radio.focus();
    }
  }
}

function send() {
  if (busy || standing?.showing == null) return;
  const missing = [["a", "reply A"], ["b", "reply B"], ["prefer", "which is better"]]
    .filter(([name]) => chosen(name) === undefined);
  if (missing.length > 0) {
    tell(`Still to say: ${missing.map(([, words]) => words).join(", ")}.`);
    find("rate").querySelector(`input[name="${missing[0][0]}"]`).focus();
    return;
  }
  sending = {
    a: Number(chosen("a")),
    b: Number(chosen("b")),
    prefer: chosen("prefer"),
    note: find("note").value.trim(),
  };
  post("rate", { rater, showing: standing.showing.id, ...sending });
}

function undo() {
  if (standing?.last) post("undo", { rater, showing: standing.last });
}

function join(name) {
  if (name.trim()) post("join", { rater: name.trim() });
}

function press(event) {
  const writing = event.target.matches("textarea, input:not([type=radio]):not([type=checkbox])");
  if (event.key === "Escape" && event.target === find("note")) {
    find("asked").focus();
    return;
  }
  if (event.target === find("note") && event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    send();
    return;
  }
  if (writing || standing === null || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Enter" && !event.target.matches("button")) {
    event.preventDefault();
    if (!event.repeat) send();
    return;
  }
  if (!find("keys").checked || event.repeat) return;
  // A digit by its place on the keyboard: with Shift, or on some layouts, its sign is another.
  const digit = /^(?:Digit|Numpad)([1-5])$/.exec(event.code);
  const act = digit !== null
    ? () => choose(event.shiftKey ? "b" : "a", digit[1])
    : {
        a: () => choose("prefer", "a"),
        b: () => choose("prefer", "b"),
        "=": () => choose("prefer", "tie"),
        n: () => find("note").focus(),
        z: undo,
      }[event.key.toLowerCase()];
  if (act) {
    event.preventDefault();
    act();
  }
}

function named() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return "";
  }
}

scale("a");
scale("b");
find("join").addEventListener("submit", (event) => {
  event.preventDefault();
  join(find("name").value);
});
find("rate").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
find("undo").addEventListener("click", undo);
find("undo-finished").addEventListener("click", undo);
document.addEventListener("keydown", press);
find("join").hidden = false;
find("name").value = named();
find("name").focus();
join(find("name").value);
