// What docs/browser.py asks of an open page; every function lists defects in words.
(() => {
  const prose = () => document.querySelector("article") ?? document.body;
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const say = (e) => `<${e.tagName.toLowerCase()} class="${e.className}"> ` +
    JSON.stringify((e.textContent ?? "").trim().slice(0, 40));

  // All that arrives late has arrived: mathematics, fonts, images out of sight.
  async function settle() {
    await window.MathJax?.startup?.promise;
    await document.fonts.ready;
    for (const image of all("img")) image.loading = "eager";
    await Promise.all(all("img").map((i) => i.decode().catch(() => null)));
  }

  // The words of a page, without code and without typeset mathematics.
  function words() {
    const skip = "pre, code, script, style, mjx-container, .sig, textarea";
    const walker = document.createTreeWalker(prose(), NodeFilter.SHOW_TEXT);
    const found = [];
    while (walker.nextNode()) {
      if (!walker.currentNode.parentElement.closest(skip)) found.push(walker.currentNode.data);
    }
    return found;
  }

  const RAW = {
    "raw TeX": /\\[a-zA-Z]{2,}|\\[([]|\$\$|\$[^$\s][^$]*\$/,
    "an unresolved number": /\(\?\?\?\)|\(eq-/,
    "markup": /\{(eq|doc|ref|numref|class|func|py:\w+|prf:ref)\}|:(math|class|func|doc):/,
  };

  function content() {
    const found = [];
    const [asked, set] = [all(".math").length, all("mjx-container").length];
    if (asked !== set) found.push(`${asked} formulas, ${set} typeset`);
    for (const e of all("mjx-merror")) found.push(`a formula with an error: ${say(e)}`);
    for (const text of words()) {
      for (const [what, pattern] of Object.entries(RAW)) {
        if (pattern.test(text)) found.push(`${what}: ${JSON.stringify(text.trim().slice(0, 60))}`);
      }
    }
    for (const i of all("img")) {
      if (!(i.complete && i.naturalWidth)) found.push(`an image that does not load: ${i.src}`);
    }
    return found;
  }

  const rgb = (colour) => colour.match(/[\d.]+/g).map(Number);
  const light = (colour) => rgb(colour).slice(0, 3)
    .map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + [0.2126, 0.7152, 0.0722][i] * c, 0);

  function paper(e) {  // the colour behind an element
    for (; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if ((rgb(colour)[3] ?? 1) > 0.5) return colour;
    }
    return "rgb(255, 255, 255)";
  }

  function unreadable(theme) {
    const found = [];
    const back = light(paper(prose()));
    if ((theme === "dark") === back > 0.5) found.push(`no ${theme} mode`);
    for (const e of all("p, li, td, th, h1, h2, h3, dt, summary, mjx-container, pre", prose())) {
      if (!e.textContent.trim() || !e.checkVisibility()) continue;
      const [a, b] = [light(getComputedStyle(e).color), light(paper(e))].sort((x, y) => y - x);
      if ((a + 0.05) / (b + 0.05) < 3) found.push(`no contrast: ${say(e)}`);
    }
    return found.slice(0, 3);
  }

  function layout(theme) {
    const found = unreadable(theme);
    const width = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth > width) {
      const wide = all("*", prose()).filter((e) => e.getBoundingClientRect().right > width + 1);
      const free = wide.filter((e) => !scrolls(e));
      found.push(`wider than the window by ${document.documentElement.scrollWidth - width}: ` +
        free.slice(0, 2).map(say).join(", "));
    }
    for (const number of all(".eqno")) {
      const container = number.closest(".math")?.querySelector("mjx-container");
      if (!container) { found.push(`a number without an equation: ${say(number)}`); continue; }
      const ink = meet(box(container), box(container.querySelector("mjx-math") ?? container));
      if (!number.checkVisibility()) continue;
      const overlap = meet(ink, box(number));
      if (overlap.right - overlap.left > 1 && overlap.bottom - overlap.top > 1) {
        found.push(`a number over its equation: ${say(number)}`);
      }
      if (box(number).right > width + 1) found.push(`a number out of sight: ${say(number)}`);
    }
    return found;
  }

  const box = (e) => e.getBoundingClientRect();
  const meet = (a, b) => ({
    left: Math.max(a.left, b.left), right: Math.min(a.right, b.right),
    top: Math.max(a.top, b.top), bottom: Math.min(a.bottom, b.bottom),
  });
  function scrolls(e) {
    for (let up = e.parentElement; up; up = up.parentElement) {
      if (["auto", "scroll"].includes(getComputedStyle(up).overflowX)) return true;
    }
    return false;
  }

  // What is folded away is hidden, and shown with its mathematics when one asks for it.
  function folded() {
    const found = [];
    for (const fold of all("details.sd-dropdown:not([open])")) {
      const inside = fold.querySelector(".sd-summary-content");
      const title = say(fold.querySelector("summary"));
      if (inside.checkVisibility({ contentVisibilityAuto: true }) && box(inside).height) {
        found.push(`not hidden: ${title}`);
      }
      fold.open = true;
      if (!inside.checkVisibility() || !box(inside).height) found.push(`not shown: ${title}`);
      const blank = all("mjx-container", inside).filter((m) => !box(m).width);
      if (blank.length) found.push(`shown without its mathematics: ${title}`);
      fold.open = false;
    }
    return found;
  }

  // Numbers that are shown, and references that show a number: compared once all pages are read.
  function numbers() {
    const page = location.pathname;
    const own = [];
    for (const e of all(".math[id] .eqno, .math-wrapper[id] .eqno")) {
      const number = e.textContent.match(/\([^)]+\)/)?.[0] ?? e.textContent;
      for (let up = e; (up = up.parentElement?.closest("[id^='equation-']"));) {
        own.push([`${page}#${up.id}`, number]);
      }
    }
    for (const e of all(".admonition[id] > .admonition-title")) {
      const named = [e.parentElement, ...all(":scope > span[id]", e.parentElement)];
      for (const n of named) own.push([`${page}#${n.id}`, e.textContent.trim()]);
    }
    const shown = /^\(?\d+(\.\d+)*\)$|^(Theorem|Lemma|Proposition|Definition|Corollary|Remark|Example|Property|Algorithm|Exercise|Solution) \d+(\.\d+)*$/;
    const cited = all("a.reference.internal", prose())
      .filter((a) => a.hash && shown.test(a.textContent.trim()))
      .map((a) => [a.pathname + a.hash, a.textContent.trim()]);
    return { own, cited };
  }

  // An animation that is played shows another image.
  async function plays() {
    const found = [];
    for (const player of all(".animation")) {
      const image = player.querySelector("img");
      const before = image.src;
      player.querySelector("button[title='Play']").click();
      const end = performance.now() + 3000;
      while (image.src === before && performance.now() < end) {
        await new Promise((done) => setTimeout(done, 20));
      }
      if (image.src === before) found.push("an animation that does not play");
      player.querySelector("button[title='Pause']").click();
    }
    return found;
  }

  window.site = { settle, content, layout, folded, numbers, plays };
})();
