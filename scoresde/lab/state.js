// What a visitor has set: its limits, its address (#key=value&...), and its lines of Python.
"use strict";

const State = (() => {
  const D = typeof Diffusion !== "undefined" ? Diffusion : require("./diffusion.js");
  const ring = (n, radius, width, turn = 0) => Array.from({ length: n }, (_, k) => {
    const angle = (2 * Math.PI * k) / n + turn;
    return [radius * Math.cos(angle), radius * Math.sin(angle), width, 1];
  });
  const spiral = Array.from({ length: 14 }, (_, k) => {
    const angle = 1.2 + 0.62 * k, radius = 0.28 + 0.115 * k;
    return [radius * Math.cos(angle), radius * Math.sin(angle), 0.13, 1];
  });
  const LAWS = {
    two: ["Two modes", [[-1, 0, 0.25, 1], [1, 0, 0.25, 1]]],
    one: ["One Gaussian", [[0.8, 0.4, 0.5, 1]]],
    unequal: ["A large and a small mode", [[-0.7, -0.3, 0.4, 0.8], [1.2, 0.7, 0.15, 0.2]]],
    three: ["Three widths", [[-1.2, -0.6, 0.45, 1], [0.2, 1.2, 0.25, 1], [1.2, -0.7, 0.1, 1]]],
    ring: ["Ring of eight", ring(8, 1.4, 0.14, Math.PI / 8)],
    grid: ["Grid of nine", [-1.25, 0, 1.25].flatMap((y) => [-1.25, 0, 1.25].map((x) => [x, y, 0.15, 1]))],
    spiral: ["Spiral", spiral],
  };
  const rounded = (v, digits = 3) => Number(v.toFixed(digits));
  const modesOf = (rows) => rows.map(([x, y, width, weight]) => ({ x: rounded(x), y: rounded(y), width, weight }));
  const MOST = 16, MOST_STEPS = 400, SPAN = 2.6; // modes; steps on the right; the picture shows [-SPAN, SPAN] squared

  const START = {
    law: "two", modes: modesOf(LAWS.two[1]), schedule: "linear", lowest: 0.1, highest: 20, rate: 10,
    N: 20, times: 1, spacing: "time", a: "ddpm", etaA: 0, b: "ddim", etaB: 0, compare: true, guided: -1, w: 1, delta: 0,
    n: 2000, seed: 1, forward: false, at: 1, density: true, paths: true, arrows: false, lines: false, tour: 0,
  };
  // low, high, whole number
  const RANGES = {
    lowest: [0, 5], highest: [0.5, 40], rate: [0.5, 40], N: [1, 200, true], times: [1, 10, true], etaA: [0, 1], etaB: [0, 1], guided: [-1, MOST - 1, true],
    w: [0, 15], delta: [-0.3, 0.3], n: [100, 4000, true], seed: [0, 999999, true], at: [0, 1], tour: [0, 7, true],
  };
  const CHOICES = {
    law: [...Object.keys(LAWS), "own"], schedule: ["linear", "cosine", "constant"], spacing: ["time", "log-SNR"],
    a: Object.keys(D.SAMPLERS), b: Object.keys(D.SAMPLERS),
  };

  const within = (value, low, high, whole) => {
    const v = Math.min(high, Math.max(low, Number(value)));
    return whole ? Math.round(v) : rounded(v, 4);
  };
  const finite = (value) => value !== "" && value !== null && Number.isFinite(Number(value));
  const mode = ([x, y, width, weight]) => ({
    x: within(x, -SPAN, SPAN), y: within(y, -SPAN, SPAN), width: within(width, 0.03, 1.2), weight: within(weight, 0.01, 20),
  });

  // a whole and lawful state from any object: what is missing or wrong is that of the start
  function lawful(given) {
    const state = { ...START };
    for (const [key, value] of Object.entries(given)) {
      if (key in RANGES && finite(value)) state[key] = within(value, ...RANGES[key]);
      else if (key in CHOICES && CHOICES[key].includes(value)) state[key] = value;
      else if (typeof START[key] === "boolean") state[key] = value === true || value === "1";
    }
    const own = (given.modes ?? []).filter((m) => [m.x, m.y, m.width, m.weight].every(finite)).slice(0, MOST);
    if (state.law === "own" && own.length) state.modes = own.map((m) => mode([m.x, m.y, m.width, m.weight]));
    else {
      if (state.law === "own") state.law = START.law;
      state.modes = modesOf(LAWS[state.law][1]);
    }
    if (state.guided >= state.modes.length) state.guided = -1;
    return state;
  }

  // only what differs from the start
  function encode(state) {
    const words = [];
    for (const key of Object.keys(START)) {
      if (key === "modes" || state[key] === START[key]) continue;
      const value = state[key];
      words.push(`${key}=${typeof value === "boolean" ? Number(value) : typeof value === "number" ? rounded(value, 4) : value}`);
    }
    if (state.law === "own") words.push("modes=" + state.modes.map((m) => [m.x, m.y, m.width, m.weight].map((v) => rounded(v)).join(",")).join(";"));
    return words.join("&");
  }

  function decode(hash) {
    const given = {};
    for (const word of hash.replace(/^#/, "").split("&")) {
      const cut = word.indexOf("=");
      if (cut > 0) given[word.slice(0, cut)] = word.slice(cut + 1);
    }
    if (given.modes) {
      given.modes = given.modes.split(";").map((row) => row.split(",")).map(([x, y, width, weight]) => ({ x, y, width, weight }));
    }
    return lawful(given);
  }

  // --- what a state stands for ------------------------------------------------------------------

  const processOf = (state) => D.schedule({ kind: state.schedule, lowest: state.lowest, highest: state.highest, rate: state.rate });
  const optionsOf = ({ guided, w, delta }) => ({ guided, w, delta });
  const modelOf = (state) => D.denoiser(D.mixture(state.modes), processOf(state), optionsOf(state));
  const stepsOf = (state) => [state.N, Math.min(MOST_STEPS, state.N * state.times)].slice(0, state.compare ? 2 : 1);
  const gridsOf = (state) => stepsOf(state).map((n) => D.grid(processOf(state), n, state.spacing));
  const samplersOf = (state) => [D.sampler(state.a, state.etaA), D.sampler(state.b, state.etaB)].slice(0, state.compare ? 2 : 1);

  // --- the same in scoresde ---------------------------------------------------------------------

  const real = (v) => (Number.isInteger(v) ? v.toFixed(1) : String(rounded(v, 4)));
  const list = (values) => `[${values.map((v) => (Array.isArray(v) ? list(v) : real(v))).join(", ")}]`;

  function python(state) {
    const process = {
      linear: `VPSDE(beta_min=${real(state.lowest)}, beta_max=${real(state.highest)})`,
      cosine: "CosineVPSDE()",
      constant: `VPSDE(beta_min=${real(state.rate)}, beta_max=${real(state.rate)})`,
    }[state.schedule];
    const samplers = samplersOf(state), noisy = samplers.some((s) => s.noise);
    const model = [];
    if (state.guided >= 0) model.push(`model = ClassifierFree(law.component(${state.guided}), law, w=${real(state.w)})`);
    if (state.delta) model.push(`model = Tempered(model, 1 / (1 + ${real(state.delta)}))  # the score times ${real(1 + state.delta)}`);
    const steps = stepsOf(state), split = steps.length > 1 && steps[1] !== steps[0];
    const ts = (n) => (state.spacing === "time" ? `uniform(${n}, sde.t_max, 1e-3)` : `log_snr(sde, ${n})`);
    const lines = [
      `sde = ${process}`,
      `means = ${list(state.modes.map((m) => [m.x, m.y]))}`,
      `widths = torch.tensor(${list(state.modes.map((m) => m.width))}, dtype=torch.float64)`,
      `law = GaussianMixture.isotropic(${list(state.modes.map((m) => m.weight))}, means, widths, sde)`,
      ...(state.guided >= 0 ? model : ["model = law", ...model]),
      "",
      `ts = ${ts(steps[0])}`,
      ...(split ? [`finer = ${ts(steps[1])}`] : []),
      `start = torch.randn(${state.n}, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(${state.seed}))`,
      ...(noisy ? [`path = BrownianPath(${state.seed}, start.shape)${samplers.length > 1 ? "  # one noise for both" : ""}`] : []),
      "half = lambda x: (x / sde.alpha(ts[-1]) + model(x, ts[-1])) / 2  # the last evaluation",
      ...samplers.map((s, i) => `${["left", "right"][i]} = half(${s.python}(model, start, ${i && split ? "finer" : "ts"}${s.noise ? ", noise=path" : ""}))`),
    ];
    const names = ["BrownianPath", "ClassifierFree", "CosineVPSDE", "GaussianMixture", "Tempered", "VPSDE", "log_snr", "uniform",
      "Ancestral", "DDIM", "DPMSolverPP", "EulerMaruyama", "PFEuler", "PFHeun", "PredictorCorrector", "ReverseDiffusion"];
    const used = names.filter((name) => lines.some((line) => new RegExp(`\\b${name}\\(|\\b${name}\\.`).test(line)));
    const all = used.sort().join(", ");
    const imports = all.length < 70 ? `from scoresde import ${all}` : `from scoresde import (\n    ${used.join(",\n    ")},\n)`;
    return ["import torch", imports, "", ...lines, ""].join("\n");
  }

  return { LAWS, START, RANGES, CHOICES, MOST, SPAN, modesOf, lawful, encode, decode, processOf, optionsOf, modelOf, stepsOf, gridsOf, samplersOf, python };
})();

if (typeof module !== "undefined") module.exports = State;
