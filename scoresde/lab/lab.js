// The page: controls, the clock, and the work, which is cut into pieces of a few milliseconds.
"use strict";

const laboratory = (() => {
  const $ = (id) => document.getElementById(id);
  const BUDGET = 6, DURATION = 5200; // ms of work in a frame; ms from noise to data
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  const percent = (v) => `${Math.round(100 * v)} %`;
  const fixed = (v, d = 3) => (Math.abs(v) >= 1e4 ? v.toExponential(1) : v.toFixed(d)).replace("-", "−");

  const onSite = document.documentElement.hasAttribute("data-site"); // among the pages of the documentation

  let state = State.decode(location.hash), scene, job = null, judging = null, result = null;
  let playing = false, dirty = true, last = 0, selected = 0, picked = false, tour = { at: 0, shown: false }, kept = [], mirrored = "";

  function build() {
    ({ scene, job } = Scene.build(state));
  }

  // --- drawing ------------------------------------------------------------------------------------

  function timeAt(ts, at) {
    const place = at * (ts.length - 1), k = Math.min(ts.length - 2, Math.floor(place + 1e-9)), u = place - k;
    return { k, t: ts[k] + u * (ts[k + 1] - ts[k]) };
  }

  function draw() {
    const { sde, samplers, target } = scene;
    const now = timeAt(scene.grids[0], state.at);
    for (const [i, sampler] of samplers.entries()) {
      const { t } = timeAt(scene.grids[i], state.at);
      Picture.panel($(i ? "canvasB" : "canvasA"), {
        image: state.density ? Picture.densityImage(target, sde, t, scene.key) : null,
        frames: scene.frames[i], at: state.at, jump: still.matches, ready: scene.ready, forward: state.forward,
        paths: state.paths, colour: sampler.view, modes: state.modes, selected: picked ? selected : -1, guided: state.guided,
        arrows: state.arrows ? Scene.arrows(scene, Math.max(Diffusion.T_EPS, t)) : null, lines: state.lines ? scene.lines : null,
      });
    }
    Picture.curves($("curves"), { sde, ts: scene.grids[0], t: now.t, label: `t = ${now.t.toFixed(3)}` });
    words(now);
  }

  // what the pictures show, in words: captions, status, labels for those who do not see them
  function words({ k, t }) {
    const N = scene.grids[0].length - 1, { sde } = scene, snr = sde.logSnr(Math.max(2e-4, t));
    const said = `Step ${Math.min(N, Math.round(state.at * N))} of ${N}, t = ${t.toFixed(3)}: signal ${sde.alpha(t).toFixed(3)}, noise ${sde.sigma(t).toFixed(3)}, log-SNR ${fixed(snr, 1)}`;
    const text = [said, scene.key, scene.ready, scene.summaries.length, state.forward, samplersKey()].join("|");
    if (text === mirrored) return;
    mirrored = text;
    $("status").textContent = scene.ready < state.n ? `${said} · at work, ${percent(scene.ready / state.n)}` : said;
    for (const [i, sampler] of scene.samplers.entries()) {
      const end = scene.summaries[i], canvas = $(i ? "canvasB" : "canvasA");
      const shares = end && end.shares.length <= 4 ? `, shares ${end.shares.map((p) => Math.round(100 * p)).join(" / ")} %` : "";
      const outcome = state.forward
        ? sampler.noise ? "Data become noise by the SDE: every point jitters." : "Data become noise along the flow: every point glides."
        : end ? `${end.evaluations} evaluations. At the end: mode width <b>${fixed(end.width, 2)}</b> of the truth${end.moved > 0.1 ? `, ${fixed(end.moved, 2)} away from its place` : ""}${shares}.` : "…";
      $(i ? "captionB" : "captionA").innerHTML = outcome;
      canvas.setAttribute("aria-label", `${sampler.name}: ${state.n} points, ${said}. ${outcome.replace(/<[^>]*>/g, "")}`);
    }
    if ($("numbers").dataset.step !== `${k}|${scene.key}|${samplersKey()}`) numbers(k);
  }

  const samplersKey = () => [state.a, state.etaA, state.b, state.etaB, state.N, state.times, state.spacing, state.compare].join();

  // (a, b, c) of the present step: the ways chosen, then the chain and the SDE
  function numbers(k) {
    const { sde, grids } = scene, [t, s] = [grids[0][k], grids[0][k + 1]], end = grids[1] ? timeAt(grids[1], state.at).k : k;
    const columns = scene.samplers.map((sampler, i) => ({ sampler, ts: grids[i], k: i ? end : k, mark: i ? "right" : scene.samplers[1] ? "left" : "chosen" }));
    for (const [key, mark] of [["ddpm", "discrete: the chain"], ["em", "continuous: the SDE"], ["euler", "continuous: the flow"]]) {
      columns.push({ sampler: Diffusion.sampler(key), ts: grids[0], k, mark });
    }
    const cells = columns.map(({ sampler, ts, k }) => {
      const rows = sampler.table(sde, ts), row = rows[k * sampler.stages], more = row.b.length > 1 && sampler.key === "dpm" ? row.b[1] : 0;
      return { a: fixed(row.a + row.b[0] * row.u, 4), b: fixed(row.b[0] * row.w, 4) + (more ? ` (${fixed(more, 4)} × the one before)` : ""), c: fixed(row.c, 4),
        note: sampler.stages === 2 ? (sampler.key === "heun" ? "first of 2" : "predictor") : "" };
    });
    const head = columns.map(({ sampler, mark }, i) => `<th scope="col" style="--view:var(--${sampler.view})">${mark}<br><span class="key"></span>${sampler.short}${cells[i].note ? `<br>(${cells[i].note})` : ""}</th>`);
    const body = [["a", "of where we are"], ["b", "of the predicted clean point"], ["c", "of fresh noise"]].map(([name, what]) =>
      `<tr><th scope="row"><i class="formula">${name}</i> · ${what}</th>${cells.map((cell) => `<td>${cell[name]}</td>`).join("")}</tr>`);
    $("numbers").innerHTML = `<thead><tr><th scope="col">Step ${k + 1}: t from ${t.toFixed(3)} to ${s.toFixed(3)}</th>${head.join("")}</tr></thead><tbody>${body.join("")}</tbody>`;
    const beta = -Math.expm1(2 * (Math.log(sde.alpha(t)) - Math.log(sde.alpha(s)))), rate = sde.beta(t) * (t - s);
    $("rateNote").textContent = `Noise that the forward step adds: β of the chain ${beta.toFixed(4)} = 1 − exp(−∫β dt), the rate times the step β(t) Δt = ${rate.toFixed(4)}.`;
    $("numbers").dataset.step = `${k}|${scene.key}|${samplersKey()}`;
  }

  // --- judgement ----------------------------------------------------------------------------------

  const nameOf = (entry) => `${entry.key}:${entry.eta}`;
  function chosen() {
    const all = [{ key: state.a, eta: state.etaA }, ...(state.compare ? [{ key: state.b, eta: state.etaB }] : []), ...kept];
    const seen = new Map(all.map(({ key, eta }) => [nameOf({ key, eta: key === "ddim" ? eta : 0 }), { key, eta: key === "ddim" ? eta : 0 }]));
    return [...seen.values()].slice(0, 6);
  }

  // what a measurement depends on; it starts by itself where the chart is in sight
  const measured = () => JSON.stringify([scene.key, state.spacing, State.optionsOf(state), state.seed, chosen()]);
  let inSight = false, wanted = 0, done = "";
  new IntersectionObserver((entries) => { inSight = entries[entries.length - 1].isIntersecting; }, { rootMargin: "80px" }).observe($("judge"));

  function judgeWhenSeen(now) {
    if (done === measured() || judging) return;
    if (!inSight || playing || job) wanted = now + 500;
    else if (now > wanted) measure();
  }

  function measure() {
    done = measured();
    const samplers = chosen().map(({ key, eta }) => Diffusion.sampler(key, eta));
    judging = Judge.judge({ law: scene.law, sde: scene.sde, spacing: state.spacing, options: State.optionsOf(state), samplers, seed: state.seed });
    $("judgeNote").textContent = "At work…";
    $("measure").disabled = true;
  }

  function judged(value) {
    result = value;
    judging = null;
    $("measure").disabled = false;
    showResult();
  }

  function showResult() {
    Picture.chart($("judge"), result, $("judge").clientWidth < 480);
    if (!result) { $("scores").innerHTML = '<caption class="hidden">Nothing measured yet</caption>'; return; }
    const near = result.steps.reduce((best, N) => (Math.abs(Math.log(N / state.N)) < Math.abs(Math.log(best / state.N)) ? N : best));
    const rows = result.entries.map((entry, i) => {
      const p = entry.points.find((q) => q.N === near);
      return `<tr><th scope="row" style="color:var(--${entry.sampler.view})">${Picture.MARKS[i]} ${entry.sampler.short}</th><td>${fixed(p.error)} ± ${fixed(p.spread)}</td><td>${percent(p.weights)}</td><td>${fixed(p.width, 2)}</td></tr>`;
    });
    $("scores").innerHTML = `<caption class="hidden">Errors at ${near} steps</caption><thead><tr><th scope="col">At ${near} steps</th><th scope="col">error</th><th scope="col">weights<br>off by</th><th scope="col">width<br>of a mode</th></tr></thead><tbody>${rows.join("")}</tbody>`;
    const note = state.guided >= 0 && state.w > 1 ? " Measured against the class, which guidance at w > 1 does not aim at." : "";
    $("judgeNote").textContent = `Sliced Wasserstein distance, in units of the picture; mean and spread over ${result.seeds} seeds of ${result.n} pairs.${note}`;
  }

  function showKept() {
    $("kept").innerHTML = "";
    for (const entry of kept) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = `${Diffusion.sampler(entry.key, entry.eta).short} ×`;
      button.setAttribute("aria-label", `Drop ${Diffusion.sampler(entry.key, entry.eta).short}`);
      button.onclick = () => { kept = kept.filter((e) => e !== entry); showKept(); };
      $("kept").append(button);
    }
  }

  // --- settings -----------------------------------------------------------------------------------

  const LIVE = new Set(["at", "density", "paths", "arrows", "tour"]); // these need no new walk
  const stepsToSlider = (N) => Math.log(N) / Math.log(200), sliderToSteps = (v) => Math.max(1, Math.round(200 ** v));

  function change(values) {
    const before = state;
    state = State.lawful({ ...state, ...values });
    if (selected >= state.modes.length) selected = 0;
    const again = Object.keys(state).some((key) => !LIVE.has(key) && JSON.stringify(before[key]) !== JSON.stringify(state[key]));
    if (again) {
      build();
      if (measured() !== done) {
        judging = null;
        $("measure").disabled = false;
      }
      if (result) showResult();
    }
    if (again || Object.keys(values).some((key) => key !== "at")) showControls();
    dirty = true;
    remember();
  }

  let timer = 0;
  function remember() {
    clearTimeout(timer);
    timer = setTimeout(() => {
      const hash = State.encode(state);
      if (hash !== location.hash.slice(1)) history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
    }, 250);
  }

  function own(modes) { change({ law: "own", modes }); }
  const edit = (values) => own(state.modes.map((m, k) => (k === selected ? { ...m, ...values } : m)));

  function showControls() {
    const s = state, text = (id, value) => { document.querySelector(`output[for="${id}"]`).textContent = value; };
    for (const id of ["a", "b", "spacing", "times", "schedule", "law"]) $(id).value = s[id];
    for (const id of ["etaA", "etaB", "lowest", "highest", "rate", "w", "delta", "n"]) $(id).value = s[id];
    for (const id of ["compare", "density", "paths", "arrows", "lines"]) $(id).checked = s[id];
    $("N").value = stepsToSlider(s.N);
    $("N").setAttribute("aria-valuetext", `${s.N} steps`);
    const m = s.modes[selected];
    $("width").value = m.width;
    $("weight").value = m.weight;
    const shown = { N: s.N, lowest: s.lowest, highest: s.highest, rate: s.rate, w: s.w.toFixed(1), n: s.n, etaA: s.etaA.toFixed(2), etaB: s.etaB.toFixed(2),
      delta: `${s.delta < 0 ? "−" : "+"}${Math.abs(Math.round(100 * s.delta))} %`, width: m.width.toFixed(2), weight: m.weight.toFixed(2) };
    for (const [id, value] of Object.entries(shown)) text(id, value);
    $("guided").innerHTML = `<option value="-1">nothing</option>${s.modes.map((_, k) => `<option value="${k}">mode ${k + 1}</option>`).join("")}`;
    $("guided").value = String(s.guided);
    const off = (selector, yes) => document.querySelectorAll(selector).forEach((e) => e.classList.toggle("off", yes));
    off(".row.linear", s.schedule !== "linear");
    off(".row.constant", s.schedule !== "constant");
    off(".guided", s.guided < 0);
    off("#etaAbox", s.a !== "ddim");
    off("#etaBbox", s.b !== "ddim");
    $("panels").classList.toggle("single", !s.compare);
    $("labelA").textContent = s.compare ? "Way back, left" : "Way back";
    $("panels").classList.toggle("plain", s.a !== "ddim" && s.b !== "ddim");
    $("a").style.setProperty("--view", `var(--${scene.samplers[0].view})`);
    if (scene.samplers[1]) $("b").style.setProperty("--view", `var(--${scene.samplers[1].view})`);
    $("guidanceNote").textContent = s.w === 1 ? "At 1 the samples are the class, exactly." : s.w > 1
      ? "Above 1 the target is not the class law, nor the law p(x) p(class | x)^w: the flow and the SDE end in different ones."
      : s.w === 0 ? "At 0 there is no guidance." : "Between 0 and 1 no law is promised either.";
    $("modes").innerHTML = "";
    s.modes.forEach((_, k) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = k + 1;
      button.setAttribute("role", "radio");
      button.setAttribute("aria-checked", String(k === selected));
      button.setAttribute("aria-label", `Mode ${k + 1}`);
      button.onclick = () => { selected = k; picked = true; showControls(); dirty = true; };
      button.onkeydown = (event) => nudge(event);
      $("modes").append(button);
    });
    $("add").disabled = s.modes.length >= State.MOST;
    $("remove").disabled = s.modes.length < 2;
    $("forward").setAttribute("aria-checked", String(s.forward));
    $("backward").setAttribute("aria-checked", String(!s.forward));
    $("python").textContent = State.python(s);
  }

  // --- the clock ------------------------------------------------------------------------------------

  function play(on) {
    const end = state.forward ? 0 : 1;
    if (on && Math.abs(state.at - end) < 1e-6) change({ at: 1 - end });
    playing = on;
    last = 0;
    $("play").textContent = on ? "Pause" : "Play";
  }

  function step(by) {
    play(false);
    const N = scene.grids[0].length - 1;
    change({ at: Math.min(N, Math.max(0, Math.round(state.at * N) + by)) / N });
  }

  // one frame: move the clock, work for a few milliseconds, draw what has changed
  function tick(now) {
    const began = performance.now();
    if (playing) {
      const past = last ? Math.min(60, now - last) : 16, way = (state.forward ? -1 : 1) * (past / DURATION);
      last = now;
      state.at = Math.min(1, Math.max(0, state.at + way));
      dirty = true;
      if (state.at === (state.forward ? 0 : 1)) { play(false); remember(); }
    }
    let task = job ? "job" : judging ? "judging" : "";
    while (task && performance.now() - began < BUDGET) {
      const done = (task === "job" ? job : judging).next();
      if (task === "job") dirty = true;
      if (done.done && task === "job") job = null;
      else if (done.done) judged(done.value);
      else if (task === "judging" && done.value) {
        if (done.value.table) {
          result = done.value.table;
          showResult();
        }
        $("judgeNote").textContent = `At work… ${percent(done.value.done)}`;
      }
      task = job ? "job" : judging ? "judging" : "";
      if (done.done) break;
    }
    if (!task) judgeWhenSeen(now);
    if (dirty) {
      $("at").value = state.at;
      draw();
      dirty = false;
    }
    return performance.now() - began;
  }

  let running = true;
  function loop(now) {
    if (running && !document.hidden) tick(now);
    requestAnimationFrame(loop);
  }

  // --- tours ----------------------------------------------------------------------------------------

  function showTours() {
    Tours.forEach((one, i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = `${i + 1} ${one.name}`;
      button.setAttribute("aria-pressed", String(state.tour === i + 1));
      button.onclick = () => (state.tour === i + 1 ? leave() : visit(i + 1, 0));
      $(`tour=${i + 1}`).replaceChildren(button);
    });
  }

  function visit(number, at) {
    const stop = Tours[number - 1].steps[at];
    tour = { at, shown: false };
    play(false);
    change({ ...State.START, modes: undefined, seed: state.seed, n: state.n, ...stop.set, tour: number });
    if (stop.measure) { kept = stop.measure.map((key) => ({ key, eta: 0 })); showKept(); measure(); }
    showTour();
    if (stop.play && !still.matches) play(true);
  }

  function leave() {
    change({ tour: 0 });
    showTour();
  }

  function showTour() {
    showTours();
    const box = $("tour");
    box.hidden = !state.tour;
    if (!state.tour) return;
    const one = Tours[state.tour - 1], stop = one.steps[tour.at], [page, anchor, what] = one.book, lastStop = tour.at === one.steps.length - 1;
    box.innerHTML = `<h2>${one.name}<small>${tour.at + 1} of ${one.steps.length}</small></h2><p>${stop.text}</p>
      ${tour.shown ? `<p class="answer">${stop.answer}</p>` : ""}
      <div class="pair"><button type="button" class="primary" id="next">${tour.shown ? (lastStop ? "Done" : "Next") : "What happened?"}</button>
      <span class="hint">In the book: ${onSite ? `<a href="${page}.html#${anchor}">${what}</a>` : what}</span></div>`;
    $("next").onclick = () => {
      if (!tour.shown) { tour.shown = true; showTour(); $("next").focus(); }
      else if (lastStop) { leave(); $("play").focus(); }
      else { visit(state.tour, tour.at + 1); $("next").focus(); }
    };
  }

  // --- hands: mouse, touch, keys --------------------------------------------------------------------

  function place(event) {
    const box = event.target.getBoundingClientRect();
    return { x: ((event.clientX - box.left) / box.width * 2 - 1) * State.SPAN, y: (1 - (event.clientY - box.top) / box.height * 2) * State.SPAN };
  }
  const nearest = ({ x, y }) => {
    const away = state.modes.map((m) => Math.hypot(m.x - x, m.y - y) - 2 * m.width), k = away.indexOf(Math.min(...away));
    return away[k] < 0.15 ? k : -1;
  };

  function draggable(canvas) {
    let grip = null;
    canvas.addEventListener("pointerdown", (event) => {
      const k = nearest(place(event));
      if (k < 0) return;
      selected = k;
      picked = true;
      grip = { dx: place(event).x - state.modes[k].x, dy: place(event).y - state.modes[k].y };
      canvas.setPointerCapture(event.pointerId);
      showControls();
      dirty = true;
    });
    canvas.addEventListener("pointermove", (event) => {
      canvas.style.cursor = grip ? "grabbing" : nearest(place(event)) < 0 ? "default" : "grab";
      if (grip) edit({ x: place(event).x - grip.dx, y: place(event).y - grip.dy });
    });
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { grip = null; });
    canvas.addEventListener("touchstart", (event) => {
      const touch = event.touches[0];
      if (nearest(place({ target: canvas, clientX: touch.clientX, clientY: touch.clientY })) >= 0) event.preventDefault();
    }, { passive: false });
    canvas.addEventListener("keydown", nudge);
  }

  function nudge(event) {
    const by = event.shiftKey ? 0.2 : 0.05;
    const way = { ArrowLeft: [-by, 0], ArrowRight: [by, 0], ArrowUp: [0, by], ArrowDown: [0, -by] }[event.key];
    if (!way) return;
    event.preventDefault();
    event.stopPropagation();
    picked = true;
    const m = state.modes[selected], focused = document.activeElement.parentElement === $("modes");
    edit({ x: m.x + way[0], y: m.y + way[1] });
    if (focused) $("modes").children[selected].focus();
  }

  function keys(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    if (event.key === " " && event.target.tagName === "BUTTON") return;
    const act = {
      " ": () => play(!playing), ArrowLeft: () => step(-1), ArrowRight: () => step(1), Home: () => { play(false); change({ at: 0 }); },
      End: () => { play(false); change({ at: 1 }); }, n: () => change({ seed: (state.seed + 1) % 1000000 }),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  function listen() {
    const on = (id, event, act) => $(id).addEventListener(event, act);
    for (const id of ["a", "b", "spacing", "schedule"]) on(id, "change", () => change({ [id]: $(id).value }));
    for (const id of ["times", "guided"]) on(id, "change", () => change({ [id]: Number($(id).value) }));
    on("law", "change", () => { selected = 0; change({ law: $("law").value, guided: -1 }); });
    for (const id of ["etaA", "etaB", "lowest", "highest", "rate", "w", "delta", "n"]) on(id, "input", () => change({ [id]: Number($(id).value) }));
    for (const id of ["compare", "density", "paths", "arrows", "lines"]) on(id, "change", () => change({ [id]: $(id).checked }));
    on("N", "input", () => change({ N: sliderToSteps(Number($("N").value)) }));
    on("at", "input", () => { play(false); change({ at: Number($("at").value) }); });
    for (const id of ["width", "weight"]) on(id, "input", () => edit({ [id]: Number($(id).value) }));
    on("add", "click", () => {
      const m = state.modes[selected];
      const turn = 2.4 * state.modes.length;
      own([...state.modes, { ...m, x: m.x / 2 + Math.cos(turn), y: m.y / 2 + Math.sin(turn) }]);
      selected = state.modes.length - 1;
      showControls();
    });
    on("remove", "click", () => own(state.modes.filter((_, k) => k !== selected)));
    on("play", "click", () => play(!playing));
    on("back", "click", () => step(-1));
    on("ahead", "click", () => step(1));
    on("forward", "click", () => change({ forward: true, at: 1 }));
    on("backward", "click", () => change({ forward: false, at: 0 }));
    on("reseed", "click", () => change({ seed: (state.seed + 1) % 1000000 }));
    on("reset", "click", () => { selected = 0; play(false); change({ ...State.START, modes: undefined }); showTour(); });
    on("measure", "click", measure);
    on("keep", "click", () => { kept = chosen().slice(0, 5); showKept(); });
    on("copy", "click", async () => {
      try { await navigator.clipboard.writeText(State.python(state)); $("copy").textContent = "Copied"; } catch {
        getSelection().selectAllChildren($("python"));
        $("copy").textContent = "Selected";
      }
      setTimeout(() => { $("copy").textContent = "Copy"; }, 1500);
    });
    on("theme", "click", () => {
      const root = document.documentElement, dark = Picture.palette().dark;
      root.dataset.theme = dark ? "light" : "dark";
      try { localStorage.setItem("scoresde-lab-theme", root.dataset.theme); } catch { /* private window */ }
      restyle();
    });
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", restyle);
    draggable($("canvasA"));
    draggable($("canvasB"));
    document.addEventListener("keydown", keys);
    window.addEventListener("resize", () => { dirty = true; showResult(); });
    window.addEventListener("hashchange", arrive);
    document.addEventListener("visibilitychange", () => { last = 0; });
  }

  function restyle() {
    Picture.forget();
    $("theme").textContent = Picture.palette().dark ? "Light" : "Dark";
    dirty = true;
    showResult();
  }

  // from the address: a tour starts at its first stop
  function arrive() {
    const given = State.decode(location.hash), alone = location.hash.match(/^#tour=(\d)$/);
    if (alone && Number(alone[1]) >= 1 && Number(alone[1]) <= 7) return visit(Number(alone[1]), 0);
    change(given);
    showTour();
  }

  function start() {
    const group = (side) => {
      $(side).innerHTML = Object.entries(Diffusion.SAMPLERS).map(([key, s]) => `<option value="${key}">${s.name}</option>`).join("");
    };
    group("a");
    group("b");
    $("home").hidden = !onSite;
    $("law").innerHTML = Object.entries(State.LAWS).map(([key, [name]]) => `<option value="${key}">${name}</option>`).join("") + '<option value="own">your own</option>';
    if (!/compare=/.test(location.hash) && !/tour=/.test(location.hash) && window.innerWidth < 560) state.compare = false;
    build();
    showControls();
    listen();
    restyle();
    const fresh = !location.hash;
    if (!fresh) arrive();
    else showTour();
    if (fresh && !still.matches) { state.at = 0; play(true); }
    requestAnimationFrame(loop);
  }

  start();
  return {
    get state() { return state; }, get scene() { return scene; }, get result() { return result; }, get playing() { return playing; },
    change, measure, visit, play, tick, busy: () => Boolean(job || judging), hold: () => { running = false; },
  };
})();
