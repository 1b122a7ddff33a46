"use strict";
// The list of items, light and dark, and the keyboard. Everything that was said by a model, a
// person or a file becomes a text node: nothing here reads text as markup.
(() => {
  const START = 20; // rows at first
  const PAGE = 100; // rows at a time, when more are asked for
  const FIRST = 4000; // characters of a text until more is asked for
  const CELLS = 4e6; // of the table of the difference, at most
  const $ = (id) => document.getElementById(id);

  function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value === true) element.setAttribute(name, "");
      else if (value !== false && value != null) element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child != null));
    return element;
  }

  function drawing(tag, attributes, ...children) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  // ---- light and dark

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const theme = $("theme");
  const isDark = () => (document.documentElement.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";
  const named = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  theme.hidden = false;
  theme.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    named();
  });
  dark.addEventListener("change", named);
  named();
  addEventListener("beforeprint", () => {
    for (const fold of document.querySelectorAll("details.fold")) fold.open = true;
  });

  // ---- the items

  const data = JSON.parse($("data").textContent);
  const browser = $("browser");
  if (!data.items.length) return;
  browser.hidden = false;

  const figures = data.variants.map((variant) =>
    variant.measures.map((measure) => {
      const [items, base, tuned, effect] = measure.figures;
      return new Map(items.map((item, k) => [item, { base: base[k], tuned: tuned[k], effect: effect[k] }]));
    }));
  const lacking = data.variants.map((variant) =>
    variant.measures.map(({ missing: [items, reasons] }) =>
      new Map(items.map((item, k) => [item, variant.reasons[reasons[k]]]))));
  const measured = data.variants.map((_, v) => {
    const found = new Set();
    for (const own of figures[v]) for (const item of own.keys()) found.add(item);
    return found;
  });
  const haystack = data.items.map((item, k) => {
    const texts = [item.id, item.suite, item.prompt, item.reference, ...item.tags];
    for (const variant of data.variants) for (const said of variant.replies[k] || []) texts.push(said[0], said[2]);
    return texts.filter(Boolean).join("\n").toLowerCase();
  });

  const unique = (values) => [...new Set(values)];
  function choice(label, options, chosen) {
    const select = make("select", { onchange: refresh });
    for (const [value, text] of options) select.append(make("option", { value, selected: value === chosen }, text));
    return [select, make("label", {}, label, select)];
  }

  const search = make("input", {
    type: "search", placeholder: "prompt, reply, id …", autocomplete: "off", spellcheck: "false",
  });
  search.addEventListener("input", refresh);
  const axes = unique(data.items.map((item) => item.axis));
  const suites = unique(data.items.map((item) => item.suite));
  const places = [["", "all"], ...axes.map((axis) => [`axis:${axis}`, axis]),
    ...(suites.length > 1 ? suites.map((suite) => [`suite:${suite}`, `suite ${suite}`]) : [])];
  const [where, whereLabel] = choice("Axis or suite", places);
  const [which, whichLabel] = choice("Change", [["", "all"], ["worse", "worse"], ["better", "better"],
    ["other", "higher or lower"], ["same", "within the margin"], ["failed", "without a figure"]]);
  const [by, byLabel] = choice("Measure", []);
  const [order, orderLabel] = choice("Order", [["worst", "worst first"], ["best", "best first"],
    ["most", "largest change first"], ["asked", "as asked"]], "worst");
  const [who, whoLabel] = choice("Tuned model", data.variants.map((v, k) => [String(k), v.name]));
  const count = make("span", { role: "status" });
  const list = make("ol", { class: "list", id: "list" });
  const more = make("button", { type: "button", class: "quiet more", onclick: () => show(shown.length + PAGE) });
  browser.append(
    make("div", { class: "controls", role: "search", "aria-label": "Items" },
      make("label", { class: "wide" }, "Search", search), data.variants.length > 1 ? whoLabel : null,
      whereLabel, whichLabel, byLabel, orderLabel),
    make("div", { class: "counted" }, count,
      make("span", { class: "keys" }, make("kbd", {}, "/"), " search  ", make("kbd", {}, "j"), " ", make("kbd", {}, "k"),
        " move  ", make("kbd", {}, "Enter"), " open")),
    list, more);

  let shown = []; // the places of the rows that are drawn
  let found = [];
  let scale = 1;

  function measures() {
    const chosen = by.value;
    by.replaceChildren();
    const own = data.variants[+who.value].measures;
    own.forEach((measure, k) => {
      if (measure.figures[0].length) by.append(make("option", { value: String(k) }, measure.label));
    });
    const known = [...by.options].map((option) => option.value);
    const named = (name) => String(own.findIndex((measure) => measure.name === name));
    by.value = [chosen, ...data.judged.map(named), named("nll"), ...known].find((k) => known.includes(k)) || "";
  }

  function kindOf(item) {
    const v = +who.value;
    if (!measured[v].has(item)) return "failed";
    const figure = by.value === "" ? null : figures[v][+by.value].get(item);
    if (!figure) return "none";
    const { direction, margin } = data.variants[v].measures[+by.value];
    if (Math.abs(figure.effect) <= (margin ?? 0)) return "same"; // a sign would make much of nothing
    if (!direction) return "other";
    return figure.effect * direction > 0 ? "better" : "worse";
  }

  function refresh() {
    measures();
    const v = +who.value;
    const own = by.value === "" ? new Map() : figures[v][+by.value];
    const direction = by.value === "" ? 0 : data.variants[v].measures[+by.value].direction;
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const [, kind, name] = /^(axis|suite):([^]*)$/.exec(where.value) || [];
    found = data.items.map((_, k) => k).filter((k) =>
      (!kind || data.items[k][kind] === name) &&
      (!which.value || kindOf(k) === which.value) &&
      words.every((word) => haystack[k].includes(word)));
    const gain = (k) => (own.has(k) ? own.get(k).effect * (direction || 1) : null);
    const key = { worst: gain, best: (k) => -gain(k), most: (k) => -Math.abs(gain(k)) }[order.value];
    if (key) {
      const last = (k) => (own.has(k) ? key(k) : Infinity);
      found.sort((a, b) => { const x = last(a), y = last(b); return x === y ? a - b : x - y; });
    }
    scale = Math.max(1e-12, ...[...own.values()].map((figure) => Math.abs(figure.effect)));
    list.replaceChildren();
    shown = [];
    show(START);
  }

  function show(upTo) {
    for (const k of found.slice(shown.length, upTo)) { list.append(row(k)); shown.push(k); }
    const left = found.length - shown.length;
    more.hidden = left === 0;
    more.textContent = `Show ${Math.min(left, PAGE)} more of ${left}`;
    count.textContent = `${found.length} of ${data.items.length} items`;
  }

  const SIGNS = { better: "▲", worse: "▼", other: "↔", same: "=", failed: "!", none: "–" };
  const SAID = { better: "better", worse: "worse", other: "changed", same: "equal, or within the margin", failed: "without a figure", none: "no figure of this measure" };

  function row(k) {
    const item = data.items[k], v = +who.value, kind = kindOf(k);
    const measure = by.value === "" ? null : data.variants[v].measures[+by.value];
    const figure = measure && figures[v][+by.value].get(k);
    const entry = make("li", {});
    const button = make("button", { type: "button", class: "row", "aria-expanded": "false", onclick: () => toggle(entry, button, k) },
      make("span", { class: `sign ${kind}`, title: SAID[kind], role: "img", "aria-label": SAID[kind] }, SIGNS[kind]),
      make("span", { class: "who" }, make("bdi", {}, item.id), make("small", {}, make("bdi", {}, item.suite))),
      make("span", { class: "asked", dir: "auto" }, (item.prompt || "").slice(0, 300)),
      make("span", { class: "bar-cell" }, figure ? bar(figure.effect, kind) : null),
      make("span", { class: "effect" }, figure ? number(figure.effect, measure.unit, figure.base !== null) : "–"));
    entry.append(button);
    return entry;
  }

  function bar(effect, kind) {
    const size = 50 * Math.sqrt(Math.abs(effect) / scale);
    const colour = { better: "var(--better)", worse: "var(--worse)" }[kind] || "var(--other)";
    return drawing("svg", { viewBox: "0 0 100 12", preserveAspectRatio: "none", "aria-hidden": "true" },
      drawing("line", { x1: 50, x2: 50, y1: 0, y2: 12, stroke: "var(--grid)" }),
      drawing("rect", { x: effect < 0 ? 50 - size : 50, y: 3, width: size, height: 6, fill: colour }));
  }

  function number(value, unit, signed) {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    let text;
    if (unit === "share") text = `${(100 * value).toFixed(1)}\u202f%`;
    else if (size && (size < 1e-3 || size >= 1e5)) {
      const [digits, power] = value.toExponential(2).split("e");
      text = `${digits}·10${[...power.replace("+", "")].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c])).join("")}`;
    }
    else text = String(+value.toPrecision(4));
    return ((signed && value > 0 ? "+" : "") + text).replaceAll("-", "−");
  }

  function toggle(entry, button, k) {
    const open = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!open));
    if (open) entry.lastChild.remove();
    else {
      entry.append(detail(k));
      entry.scrollIntoView({ block: "nearest" }); // its end, or its beginning where it is long
    }
  }

  // ---- one item

  function detail(k) {
    const item = data.items[k], v = +who.value, variant = data.variants[v];
    const place = make("div", { class: "detail" });
    const tags = [item.axis, ...item.tags].join(" · ");
    place.append(make("h4", {}, "Prompt ", make("small", {}, make("bdi", {}, tags))));
    place.append(item.prompt === null
      ? make("p", { class: "reasons" }, "The run folder does not hold the text of this item.")
      : said(item.prompt, "prompt", "Prompt"));
    if (item.reference !== null) place.append(make("h4", {}, "Reference"), said(item.reference, "", "Reference"));
    const replies = variant.replies[k] || [];
    replies.forEach((reply, sample) => place.append(sides(reply, replies.length > 1 ? sample : null)));
    const parting = replies.length === 1 && variant.partings[k];
    if (parting) {
      place.append(make("p", { class: "reasons" },
        parting[0] ? `The replies part after ${parting[0]} token${parting[0] === 1 ? "" : "s"}, behind ` : "The replies part at the first token.",
        parting[0] ? make("bdi", { class: "piece" }, quoted(parting[1])) : null, parting[0] ? "." : null));
    }
    const texts = variant.tokens.texts[k];
    if (texts) place.append(lens(texts, variant.tokens.pieces));
    else if (variant.tokens.kept < variant.tokens.of) {
      place.append(make("p", { class: "reasons" }, `The page holds the tokens of the ${variant.tokens.kept} items of highest KL, of ${variant.tokens.of}; this is another one. In a terminal: tunediff look RUN ITEM.`));
    }
    place.append(table(k, v));
    return place;
  }

  function said(text, kind, label) {
    const box = make("div", { class: `said ${kind}`, dir: "auto", tabindex: "0", role: "group", "aria-label": label });
    box.append(text.slice(0, FIRST));
    if (text.length > FIRST) {
      const all = make("button", { type: "button", class: "quiet", onclick: () => box.replaceChildren(text) },
        `… show all ${text.length.toLocaleString("en")} characters`);
      box.append(" ", all);
    }
    return box;
  }

  const STOPS = { length: "cut at the token limit", stop_string: "ended by a stop text" };

  function sides([base, baseStop, tuned, tunedStop], sample) {
    const place = make("div", {});
    const half = (name, stop, box) => make("div", {},
      make("h4", {}, sample === null ? name : `${name}, sample ${sample + 1}`,
        STOPS[stop] ? make("small", {}, STOPS[stop]) : null), box);
    const boxes = [said(base, "base", "Reply of base"), said(tuned, "tuned", "Reply of tuned")];
    place.append(make("div", { class: "sides" }, half("base", baseStop, boxes[0]), half("tuned", tunedStop, boxes[1])));
    if (base === tuned) place.append(make("p", { class: "reasons" }, "The replies are the same."));
    else if (base.length && tuned.length) {
      const parts = difference(base.slice(0, FIRST), tuned.slice(0, FIRST));
      if (!parts) place.append(make("p", { class: "reasons" }, "The replies are too long for a word-level difference."));
      else {
        const marked = () => {
          boxes[0].replaceChildren(...parts.filter((p) => p[0] <= 0).map(([kind, text]) => kind ? make("del", {}, text) : text));
          boxes[1].replaceChildren(...parts.filter((p) => p[0] >= 0).map(([kind, text]) => kind ? make("ins", {}, text) : text));
        };
        const plain = () => {
          boxes[0].replaceWith(boxes[0] = said(base, "base", "Reply of base"));
          boxes[1].replaceWith(boxes[1] = said(tuned, "tuned", "Reply of tuned"));
        };
        const box = make("input", { type: "checkbox" });
        box.addEventListener("change", () => (box.checked ? marked() : plain()));
        place.append(make("div", { class: "tools" }, make("label", {}, box, " word-level difference: ",
          make("del", {}, "only base"), " ", make("ins", {}, "only tuned"))));
      }
    }
    return place;
  }

  // The longest common subsequence of words: [-1, only base], [0, both], [1, only tuned].
  function difference(one, other) {
    const a = one.match(/\s+|\S+/g) || [], b = other.match(/\s+|\S+/g) || [];
    const n = a.length, m = b.length, width = m + 1;
    if ((n + 1) * width > CELLS) return null;
    const best = new Uint16Array((n + 1) * width);
    for (let i = n - 1; i >= 0; i--) {
      for (let j = m - 1; j >= 0; j--) {
        best[i * width + j] = a[i] === b[j] ? best[(i + 1) * width + j + 1] + 1
          : Math.max(best[(i + 1) * width + j], best[i * width + j + 1]);
      }
    }
    const parts = [];
    const add = (kind, text) => {
      const last = parts[parts.length - 1];
      if (last && last[0] === kind) last[1] += text;
      else parts.push([kind, text]);
    };
    let i = 0, j = 0;
    while (i < n || j < m) {
      if (i < n && j < m && a[i] === b[j]) { add(0, a[i]); i++; j++; }
      else if (j === m || (i < n && best[(i + 1) * width + j] >= best[i * width + j + 1])) add(-1, a[i++]);
      else add(1, b[j++]);
    }
    return parts;
  }

  // ---- the microscope

  const OF = { reference: "reference", base: "base’s reply", tuned: "tuned’s reply" };
  const WAYS = { kl: "KL", logp: "Δ log-probability" };
  const quoted = (text) => JSON.stringify(text).slice(1, -1).replaceAll('\\"', '"').replace(/^/, "“") + "”";

  function lens(texts, pieces) {
    let of = "reference" in texts ? "reference" : Object.keys(texts)[0], way = "kl", now = -1;
    const tokens = make("div", { class: "tokens", dir: "auto", tabindex: "0", role: "group" });
    const read = make("div", { class: "read", "aria-live": "polite" });
    const buttons = [];
    const pick = (group, value, text, set) => {
      const button = make("button", { type: "button", class: "quiet", onclick: () => { set(value); draw(); } }, text);
      buttons.push([group, value, button]);
      return button;
    };
    const tools = make("div", { class: "tools" }, "Tokens of ",
      ...Object.keys(texts).map((value) => pick("of", value, OF[value], (chosen) => { of = chosen; now = -1; })),
      " by ", ...Object.entries(WAYS).map(([value, text]) => pick("way", value, text, (chosen) => { way = chosen; })));
    const hint = make("p", { class: "reasons" });

    function draw() {
      const { t, s, k, d, b } = texts[of];
      read.classList.toggle("rich", Boolean(b)); // the same height for every token
      for (const [group, value, button] of buttons) button.setAttribute("aria-pressed", String(value === (group === "of" ? of : way)));
      tokens.setAttribute("aria-label", `Tokens of the ${OF[of]}; arrow keys move`);
      tokens.replaceChildren(make("span", { class: "context" }, t.slice(0, s).map((piece) => pieces[piece]).join("")));
      t.slice(s).forEach((piece, at) => {
        const value = way === "kl" ? k[at] : d[at];
        const much = value === null ? 0 : 1 - Math.exp(-Math.abs(value) / (way === "kl" ? 1 : 2));
        const down = way === "logp" && value < 0;
        const mark = way === "logp" && Math.abs(value) > Math.LN2 ? (down ? " down" : " up") : way === "kl" && value > 1 ? " up" : "";
        const token = make("span", { class: `tok${mark}`, onmouseenter: () => look(at), onclick: () => look(at) }, pieces[piece] || "·");
        token.style.setProperty("--much", much.toFixed(3));
        token.style.setProperty("--hue", way === "kl" ? "var(--other)" : down ? "var(--worse)" : "var(--better)");
        tokens.append(token);
      });
      hint.textContent = way === "kl"
        ? "The stronger the colour, the larger KL(base‖tuned); underlined above 1 nat."
        : "Green, underlined: tuned finds the token at least twice as likely. Orange, dotted: half as likely or less.";
      if (now >= 0) look(now);
      else read.replaceChildren(make("p", {}, "Point at a token, or focus the text and use the arrow keys."));
    }

    function look(at) {
      const { t, s, k, d, b, u } = texts[of];
      const all = tokens.querySelectorAll(".tok");
      if (now >= 0 && all[now]) all[now].classList.remove("now");
      now = Math.max(0, Math.min(all.length - 1, at));
      all[now].classList.add("now");
      const chosen = t[s + now];
      const side = (name, own) => own && own[now].length ? make("table", {},
        make("thead", {}, make("tr", {}, make("th", { scope: "col" }, name), make("th", { scope: "col" }, "p"))),
        make("tbody", {}, ...pairs(own[now]).map(([piece, p]) => make("tr", {},
          make("td", { class: "piece" }, make("bdi", {}, quoted(pieces[piece])), piece === chosen ? " ←" : null),
          make("td", {}, p < 5e-4 ? "<.001" : p.toFixed(3)))))) : null;
      read.replaceChildren(
        make("div", {}, make("p", {}, make("bdi", { class: "piece" }, quoted(pieces[chosen]))),
          make("p", {}, `KL ${number(k[now], "")} nats`), make("p", {}, `ln q − ln p ${number(d[now], "", true)}`)),
        ...[side("base expects", b), side("tuned expects", u)].filter(Boolean));
      if (!b) read.append(make("p", { class: "reasons" }, "What both expected is kept for the items of highest KL."));
    }

    tokens.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
      if (!step) return;
      event.preventDefault();
      look(now + step);
      tokens.querySelectorAll(".tok")[now].scrollIntoView({ block: "nearest" });
    });
    tokens.addEventListener("focus", () => { if (now < 0) look(0); });
    draw();
    return make("div", { class: "lens" }, tools, tokens, hint, read);
  }

  function pairs(flat) {
    const found = [];
    for (let i = 0; i < flat.length; i += 2) found.push([flat[i], flat[i + 1]]);
    return found;
  }

  function table(k, v) {
    const body = make("tbody", {}), reasons = new Map();
    data.variants[v].measures.forEach((measure, m) => {
      const figure = figures[v][m].get(k);
      if (figure) {
        body.append(make("tr", {}, make("th", { scope: "row" }, measure.label),
          make("td", {}, number(figure.base, measure.unit)), make("td", {}, number(figure.tuned, measure.unit)),
          make("td", {}, number(figure.effect, measure.unit, figure.base !== null)), make("td", {}, measure.unit)));
      } else if (lacking[v][m].has(k)) {
        const why = lacking[v][m].get(k);
        reasons.set(why, [...(reasons.get(why) || []), measure.label]);
      }
    });
    const place = make("details", { class: "numbers", open: body.children.length === 0 }, make("summary", {}, "All measures of this item"));
    if (body.children.length) {
      const head = ["measure", "base", "tuned", "effect", "unit"].map((title) => make("th", { scope: "col" }, title));
      place.append(make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Measures of this item" },
        make("table", {}, make("thead", {}, make("tr", {}, ...head)), body)));
    }
    for (const [why, names] of reasons) {
      place.append(make("p", { class: "reasons" }, `No figure of ${names.join(", ")}: `, make("bdi", {}, why)));
    }
    return place;
  }

  // ---- the keyboard

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "Escape" && event.target === search) { search.value = ""; refresh(); search.blur(); return; }
    if (typing) return;
    if (event.key === "/") { event.preventDefault(); search.focus(); }
    if (event.key === "j" || event.key === "k") {
      const rows = [...list.querySelectorAll(".row")];
      if (!rows.length) return;
      const entry = document.activeElement.closest("#list > li");
      const at = entry ? rows.indexOf(entry.querySelector(".row")) : -1;
      const next = rows[Math.min(rows.length - 1, Math.max(0, at + (event.key === "j" ? 1 : -1)))];
      next.focus();
      next.scrollIntoView({ block: "nearest" });
    }
  });

  refresh();
})();
