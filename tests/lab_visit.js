// A visit to the laboratory, at once and without waiting; the report is JSON in #report.
"use strict";
(() => {
  const errors = [], $ = (id) => document.getElementById(id), lab = laboratory;
  window.addEventListener("error", (event) => errors.push(event.message));
  lab.hold();
  let clock = 0;
  const finishWork = () => { const work = []; do work.push(lab.tick((clock += 16))); while (lab.busy()); return work; };
  const ends = () => lab.scene.frames.map((frames) => Array.from(frames[frames.length - 1]));
  const press = (key, target = document.body) => target.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  const median = (v) => v.sort((a, b) => a - b)[v.length >> 1];
  const report = { errors, bad: [], blank: [], runs: 0 };
  try {
    const { law, N, a, guided, w, at } = lab.state;
    report.restored = { law, N, a, guided, w, at };

    const wide = innerWidth > 600; // on a phone a few will do
    for (const sampler of Object.keys(Diffusion.SAMPLERS)) for (const schedule of ["linear", "cosine", "constant"])
      for (const strength of wide ? [null, 1, 7.5, 15] : [15]) for (const steps of [1, 6]) {
        lab.change({ law: "three", a: sampler, b: sampler, etaB: 0.5, schedule, guided: strength === null ? -1 : 1, w: strength ?? 1, N: steps,
          delta: strength === 15 ? 0.3 : 0, n: 100, at: 1, compare: true, lines: strength === 1, arrows: strength === 1 });
        finishWork();
        report.runs += 1;
        const fine = lab.scene.frames.every((frames) => frames.every((x) => x.every(Number.isFinite)));
        if (!fine || /NaN|Infinity/.test(document.body.innerText)) report.bad.push([sampler, schedule, strength, steps]);
      }

    const start = { law: "two", a: "ddpm", b: "em", schedule: "linear", guided: -1, delta: 0, N: 10, n: 500, seed: 7, lines: false, arrows: false };
    const run = (seed) => { lab.change({ ...start, seed }); finishWork(); return ends(); };
    const first = run(7), other = run(8), again = run(7);
    report.same = JSON.stringify(first) === JSON.stringify(again);
    report.differs = JSON.stringify(first) !== JSON.stringify(other);

    lab.change({ at: 0.5, seed: 1 });
    finishWork();
    const keys = (report.keys = {});
    press("ArrowRight");
    keys.step = Math.round(lab.state.at * 10) - 5;
    press("End");
    keys.end = lab.state.at;
    press("Home");
    keys.home = lab.state.at;
    press("n");
    keys.seed = lab.state.seed - 1;
    press(" ");
    keys.play = lab.playing;
    lab.tick((clock += 16));
    lab.tick((clock += 16));
    keys.play &&= lab.state.at > 0;
    press(" ");
    const before = lab.state.modes[0].y;
    press("ArrowUp", $("canvasA"));
    keys.moved = lab.state.law === "own" && lab.state.modes[0].y > before;
    finishWork();

    const inked = (canvas) => {
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      let n = 0;
      for (let i = 3; i < data.length; i += 4) n += data[i] > 0;
      return n;
    };
    const faces = new Set();
    for (let i = 0; i < 2; i++) {
      $("theme").click();
      finishWork();
      faces.add(getComputedStyle(document.documentElement).backgroundColor);
      for (const id of ["canvasA", "canvasB", "curves"]) if (inked($(id)) < 500) report.blank.push(id);
    }
    report.themes = faces.size;

    let stops = 0;
    for (let tour = 1; tour <= 7; tour++) for (let at = 0; at < 3; at++) {
      lab.visit(tour, at);
      finishWork();
      $("next").click();
      stops += $("tour").querySelectorAll(".answer").length;
    }
    report.tours = stops;

    lab.change({ ...start, n: 100 });
    finishWork();
    lab.measure();
    finishWork();
    report.judged = lab.result ? lab.result.entries[0].points[0].error : 0;
    if (inked($("judge")) < 300) report.blank.push("judge");

    document.querySelectorAll("canvas, button, select, input").forEach((e) => {
      const name = e.getAttribute("aria-label") || e.textContent.trim() || (e.labels && e.labels.length ? "label" : "");
      if (!name) report.unnamed = [...(report.unnamed ?? []), e.id];
    });
    report.unnamed ??= [];
    report.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;

    // the work of a frame at 4000 points a panel: while the walks are computed, and while playing
    lab.change({ ...start, law: "ring", n: 4000, N: 50, at: 0 });
    const work = finishWork();
    lab.play(true);
    for (let i = 0; i < 60; i++) work.push(lab.tick((clock += 16)));
    lab.play(false);
    report.worst = Math.max(...work);
    report.median = median(work); // sorted by now
    report.quartile = work[work.length >> 2]; // not interrupted by others on a busy machine
  } catch (error) {
    errors.push(String(error.stack));
  }
  $("report").textContent = JSON.stringify(report);
})();
