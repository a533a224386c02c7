// Answers the questions of tests/test_lab.py about the laboratory's numerics: JSON in, JSON out.
"use strict";
const [folder, questions] = [process.argv[2], JSON.parse(require("fs").readFileSync(0, "utf8"))];
const D = require(`${folder}/diffusion.js`), Judge = require(`${folder}/judge.js`), State = require(`${folder}/state.js`);
const Tours = require(`${folder}/tours.js`);

const array = (x) => Float64Array.from(x.flat()), plain = (x) => Array.from(x);
const sampler = ([key, eta]) => D.sampler(key, eta);
const model = (q) => D.denoiser(D.mixture(q.modes), D.schedule(q.schedule), q.options);
const answers = {
  process(q) {
    const sde = D.schedule(q.schedule);
    const of = (name) => q.ts.map((t) => sde[name](t));
    return { tMax: sde.tMax, alpha: of("alpha"), sigma: of("sigma"), sigma2: of("sigma2"), log_snr: of("logSnr"), f: of("f"), g2: of("g2"),
      time: q.levels.map((l) => sde.timeOfLogSnr(l)) };
  },
  denoiser(q) {
    const of = (what) => q.ts.map((t) => { const out = new Float64Array(2 * q.x.length); model(q)[what](t)(array(q.x), out); return plain(out); });
    return { x0_hat: of("at"), score: of("score"), velocity: of("velocity") };
  },
  grid: (q) => D.grid(D.schedule(q.schedule), q.n, q.spacing),
  table: (q) => sampler(q.sampler).table(D.schedule(q.schedule), q.ts),
  walk(q) {
    const m = model(q), x = array(q.x), seen = [];
    D.walk(sampler(q.sampler).table(m.sde, q.ts), m, x, (row, z, k) => z.set(array(q.z[k])), (k, y) => seen.push(plain(y)));
    return { rows: seen, end: plain(D.finish(m, x, q.ts[q.ts.length - 1])) };
  },
  // exact points sent to noise, and brought back: the variance across the line of the modes
  across(q) {
    const m = model(q), start = D.draw(m.law, D.normals(q.seed), q.n).x, z = D.normals(q.seed, 1).fill(new Float64Array(2 * q.n));
    const t = q.ts[0], x = start.map((v, i) => m.sde.alpha(t) * v + m.sde.sigma(t) * z[i]), random = D.normals(q.seed, 2);
    D.walk(sampler(q.sampler).table(m.sde, q.ts), m, x, (row, fresh) => random.fill(fresh));
    D.finish(m, x, q.ts[q.ts.length - 1]);
    let sum = 0;
    for (let i = 1; i < x.length; i += 2) sum += x[i] ** 2;
    return sum / q.n;
  },
  judge: (q) => Judge.all(Judge.judge({ law: D.mixture(q.modes), sde: D.schedule(q.schedule), spacing: q.spacing, options: q.options ?? {},
    samplers: q.samplers.map(sampler), steps: q.steps, seeds: q.seeds, n: q.n })),
  // one path on a fine grid, asked for on it and on every fourth time
  brownian(q) {
    const ts = D.grid(D.linear(), 12), path = D.brownian(ts, D.increments(ts, 2 * q.n, D.normals(q.seed))), ask = (t, s) => plain(path(t, s, new Float64Array(2 * q.n)));
    return { ts, fine: ts.slice(1).map((s, k) => ask(ts[k], s)), coarse: [0, 1, 2].map((k) => ask(ts[4 * k], ts[4 * k + 4])) };
  },
  flow(q) {
    const m = model(q), x = array(q.x);
    return plain(D.flow(m, x, q.from, q.to, q.n));
  },
  python: (q) => State.python(State.lawful(q.state)),
  walks(q) {
    const state = State.lawful(q.state);
    return { state, samplers: State.samplersOf(state).map((s) => [s.key, s.key === "ddim" ? Number(s.python.match(/[\d.]+/)[0]) : 0]), grids: State.gridsOf(state) };
  },
  round: (q) => { const state = State.lawful(q.state); return { before: state, after: State.decode("#" + State.encode(state)) }; },
  decode: (q) => State.decode(q.hash),
  tours: () => Tours.flatMap((tour) => tour.steps.map(({ set }) => ({ set, state: State.lawful({ ...State.START, modes: undefined, ...set }) }))),
  names: () => ({ books: Tours.map((tour) => tour.book), samplers: Object.entries(D.SAMPLERS).map(([key, s]) => [key, s.python, s.view, s.stages, s.noise]), laws: Object.keys(State.LAWS), start: State.START }),
};
process.stdout.write(JSON.stringify(questions.map((q) => answers[q.ask](q))));
