"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const root = document.documentElement;
  const rows = [...document.querySelectorAll(".row")];

  // Theme: the system's, until the reader chooses. Pages opened from disk may have no storage.
  const stored = (key, value) => {
    try {
      if (value !== undefined) localStorage.setItem(key, value);
      return localStorage.getItem(key);
    } catch {
      return null;
    }
  };
  const theme = $("theme");
  const isDark = () =>
    root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const nameTheme = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  const setTheme = (name) => { root.dataset.theme = name; stored("sftkit-theme", name); nameTheme(); };
  const known = stored("sftkit-theme");
  if (known === "light" || known === "dark") root.dataset.theme = known;
  nameTheme();
  theme.hidden = false;
  theme.addEventListener("click", () => setTheme(isDark() ? "light" : "dark"));

  // Steps per epoch.
  const batch = $("batch");
  if (batch) {
    const showSteps = () => {
      const size = Math.floor(Number(batch.value));
      const steps = Math.ceil(Number(batch.dataset.rows) / size);
      $("steps").textContent =
        size < 1 ? "enter 1 or more" : `${steps.toLocaleString("en")} ${steps === 1 ? "step" : "steps"} per epoch`;
    };
    $("calculator").hidden = false;
    batch.addEventListener("input", showSteps);
    showSteps();
  }

  // Numbers of pictures, below the pointer.
  const tip = $("tip");
  const showTip = (event) => {
    const column = event.target.closest?.("[data-tip]");
    tip.hidden = !column;
    if (!column) return;
    tip.textContent = column.dataset.tip;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 12, innerWidth - box.width - 8))}px`;
    tip.style.top = `${Math.max(4, event.clientY - box.height - 10)}px`;
  };
  document.addEventListener("pointermove", showTip);
  document.addEventListener("pointerdown", showTip);
  document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

  if (!rows.length) return;

  // Tokens one by one, their ids, and white space. The text of the page comes back when all are off.
  const shown = { tokens: false, ids: false, space: false, special: true };
  const original = new Map();
  const marks = { " ": "·", "\t": "→\t", "\n": "⏎\n" };
  const element = (name, style, text) => {
    const made = document.createElement(name);
    if (style) made.className = style;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const addText = (parent, text) => {
    if (!shown.space) return parent.append(text);
    for (const part of text.split(/([ \t\n])/)) {
      if (part in marks) parent.append(element("span", "ws", marks[part]));
      else if (part) parent.append(part);
    }
  };
  const drawTokens = (box, bubble) => {
    const one = shown.tokens || shown.ids;
    const pieces = document.createDocumentFragment();
    let last = null;
    bubble.t.forEach((text, index) => {
      const style = data.styles[bubble.c[index]];
      if (one || !last || last.dataset.style !== style) {
        last = element("span", one ? `tok ${style}` : style);
        last.dataset.style = style;
        pieces.append(last);
      }
      if (one) {
        const label = bubble.l && index in bubble.l ? `, label ${bubble.l[index]}` : "";
        last.dataset.tip = `token ${bubble.s + index}, id ${bubble.i[index]}${label}`;
      }
      const [, line, ends] = text.match(/^([^]*?)(\n*)$/);
      addText(last, line);
      if (shown.ids) last.append(element("small", "", String(bubble.i[index])));
      addText(last, ends);
    });
    box.replaceChildren(pieces);
  };
  const draw = (row) => {
    const bubbles = data.rows[row.id] || [];
    row.querySelectorAll("[data-tokens]").forEach((box, index) => {
      if (!original.has(box)) original.set(box, [...box.childNodes]);
      if (shown.tokens || shown.ids || shown.space) drawTokens(box, bubbles[index]);
      else box.replaceChildren(...original.get(box));
    });
  };
  const stale = new Set();
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting && stale.delete(entry.target)) draw(entry.target);
    highlight();
  }, { rootMargin: "600px" });
  rows.forEach((row) => watcher.observe(row));
  const redraw = () => {
    for (const row of rows) {
      stale.add(row);
      watcher.unobserve(row);
      watcher.observe(row); // reports the rows that are near
    }
  };
  const toggles = [...document.querySelectorAll("[data-show]")];
  const toggle = (name) => {
    shown[name] = !shown[name];
    toggles.find((each) => each.dataset.show === name).setAttribute("aria-pressed", String(shown[name]));
    document.body.classList.toggle("no-special", !shown.special);
    if (name !== "special") redraw();
  };
  toggles.forEach((each) => each.addEventListener("click", () => toggle(each.dataset.show)));
  addEventListener("beforeprint", () => { rows.forEach(draw); stale.clear(); });

  // Search and filters. The text of a row is that of its tokens, whatever is shown.
  $("tools").hidden = false;
  const search = $("search"), reason = $("reason"), split = $("split");
  const texts = new Map(rows.map((row) => {
    const bubbles = data.rows[row.id] || [];
    const words = bubbles.length
      ? bubbles.map((bubble) => bubble.t.join("")).join("\n")
      : [...row.querySelectorAll(".text")].map((box) => box.textContent).join("\n");
    return [row, words.toLowerCase()];
  }));
  const visible = () => rows.filter((row) => !row.hidden);
  const hasFindings = (row) => "findings" in row.dataset;
  const highlight = () => {
    if (!CSS.highlights) return;
    CSS.highlights.delete("found");
    const wanted = search.value.toLowerCase();
    if (!wanted) return;
    const ranges = [];
    for (const box of document.querySelectorAll(".row:not([hidden]) .text")) {
      const nodes = [];
      const walker = document.createTreeWalker(box, NodeFilter.SHOW_TEXT);
      let text = "";
      while (walker.nextNode()) {
        nodes.push([text.length, walker.currentNode]);
        text += walker.currentNode.data.toLowerCase();
      }
      const at = (position) => nodes.findLast(([start]) => start <= position);
      for (let from = text.indexOf(wanted); from >= 0; from = text.indexOf(wanted, from + wanted.length)) {
        const [first, last] = [at(from), at(from + wanted.length - 1)];
        const range = new Range();
        range.setStart(first[1], Math.min(from - first[0], first[1].length));
        range.setEnd(last[1], Math.min(from + wanted.length - last[0], last[1].length));
        ranges.push(range);
        if (ranges.length >= 2000) break;
      }
    }
    CSS.highlights.set("found", new Highlight(...ranges));
    return ranges[0];
  };
  const filter = () => {
    const wanted = search.value.toLowerCase();
    let count = 0;
    for (const row of rows) {
      const fits = (!wanted || texts.get(row).includes(wanted))
        && (!split || !split.value || row.dataset.split === split.value)
        && (!reason.value || (reason.value === "*" ? hasFindings(row)
          : JSON.parse(row.dataset.reasons).includes(reason.value)));
      row.hidden = !fits;
      count += fits;
    }
    $("none").hidden = count > 0;
    const total = !wanted && !split?.value && reason.selectedOptions[0].dataset.total;
    $("matches").textContent = total ? `${count} shown of ${total}` : `${count} of ${rows.length} rows`;
    say("");
    return highlight();
  };
  const say = (text) => { $("said").textContent = text; };
  // Scrolls to the first row that fits; in a long row, to the text that was found.
  const reveal = (found) => {
    const row = visible()[0];
    if (!row || !(search.value || reason.value || split?.value)) return;
    const place = found?.getBoundingClientRect();
    if (!place || place.top - row.getBoundingClientRect().top < innerHeight / 2) row.scrollIntoView({ block: "start" });
    else scrollTo({ top: scrollY + place.top - innerHeight / 2 });
  };
  // Where the tools scroll away, as on a phone, the reader types first.
  const isInView = () => getComputedStyle($("tools")).position === "sticky";
  let timer = 0;
  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      const found = filter();
      if (isInView()) reveal(found);
    }, 120);
  });
  [reason, split].forEach((each) => each?.addEventListener("change", () => reveal(filter())));
  filter();

  // Links to rows that a filter hides.
  addEventListener("hashchange", () => {
    const row = $(decodeURIComponent(location.hash.slice(1)));
    if (!row?.hidden) return;
    search.value = reason.value = "";
    if (split) split.value = "";
    filter();
    row.scrollIntoView();
  });

  // Keyboard. The next finding after the last one is the first one.
  const nextFinding = () => {
    const all = visible().filter(hasFindings);
    const here = current();
    const isLast = here && !all.some((row) => here.compareDocumentPosition(row) & Node.DOCUMENT_POSITION_FOLLOWING);
    if (isLast && all.length) show(all[0]);
    else go(1, hasFindings);
    if (!all.length) say("No row that is shown has a finding.");
    else if (isLast) say(all.length > 1 ? "Continued at the first row with a finding." : "No other row has a finding.");
  };
  const current = () => document.activeElement?.closest?.(".row");
  const show = (row) => {
    row.focus({ preventScroll: true });
    row.scrollIntoView({ block: "start" });
  };
  const go = (step, fits) => {
    const all = visible().filter(fits);
    say("");
    if (!all.length) return;
    const here = current();
    let index;
    if (here) {
      const after = all.findIndex((row) => here.compareDocumentPosition(row) & Node.DOCUMENT_POSITION_FOLLOWING);
      const position = all.indexOf(here);
      if (step > 0) index = after < 0 ? all.length - 1 : after;
      else index = position > 0 ? position - 1 : 0;
    } else {
      index = Math.max(0, all.findIndex((row) => row.getBoundingClientRect().top > 0));
    }
    show(all[index]);
  };
  const keys = {
    j: () => go(1, () => true),
    k: () => go(-1, () => true),
    t: () => toggle("tokens"),
    i: () => toggle("ids"),
    w: () => toggle("space"),
    s: () => toggle("special"),
    "/": () => search.focus(),
  };
  if (reason.querySelector('[value="*"]')) keys.n = nextFinding;
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter" && event.target === search) return reveal(filter());
    if (event.key === "Escape" && event.target === search) {
      search.value = "";
      filter();
      return search.blur();
    }
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) || !(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  });
})();
