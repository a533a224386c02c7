// What is on the stage: the walks of a state's points, one small block after the other, so that the
// page never waits; and the fields that are drawn under them.
"use strict";

const Scene = (() => {
  // what all drawing reads (frames of every panel, filled as the work goes on), and the work itself
  function build(state) {
    const sde = State.processOf(state), law = Diffusion.mixture(state.modes), model = State.modelOf(state);
    const grids = State.gridsOf(state), samplers = State.samplersOf(state);
    const aimed = state.guided >= 0 && state.w !== 0;
    const scene = {
      sde, law, model, grids, samplers, target: aimed ? law.component(state.guided) : law, ready: 0, summaries: [], lines: null,
      key: JSON.stringify([state.modes, state.schedule, state.lowest, state.highest, state.rate, aimed && state.guided]),
      frames: grids.map((ts) => ts.map(() => new Float32Array(2 * state.n))),
    };
    return { scene, job: work(scene, { ...state }) };
  }

  function* work(scene, { n, seed, forward, lines }) {
    const { grids, samplers, model, sde } = scene, times = Diffusion.union(...grids);
    const tables = samplers.map((s, i) => s.table(sde, grids[i]));
    const cost = tables.reduce((sum, rows) => sum + rows.length, 0) * scene.law.modes.length + 4 * times.length;
    const size = Math.max(1, Math.min(128, Math.round(40000 / cost)));
    if (lines) scene.lines = flowLines(scene);
    for (let first = 0; first < n; first += size) {
      const count = Math.min(size, n - first);
      if (forward) yield* sent(scene, first, count, seed);
      else {
        const { start, path, random } = noiseOf(first, count, seed, times);
        samplers.forEach((sampler, i) => {
          const x = start.slice(), frames = scene.frames[i], stages = sampler.stages;
          frames[0].set(x, 2 * first);
          Diffusion.walk(tables[i], model, x, Diffusion.noiseOf(path, random(i)), (k, y) => {
            if (k % stages === stages - 1) frames[(k + 1) / stages].set(y, 2 * first);
          });
          frames[frames.length - 1].set(Diffusion.finish(model, x, Diffusion.T_EPS), 2 * first);
        });
      }
      scene.ready = first + count;
      yield;
    }
    for (const [i, sampler] of samplers.entries()) {
      scene.summaries[i] = { ...Judge.modes(scene.law, scene.target, scene.frames[i][scene.frames[i].length - 1]), evaluations: (grids[i].length - 1) * sampler.stages + 1 };
      yield;
    }
  }

  // start and path of point i: for given times they depend on the seed and on i alone
  function noiseOf(first, count, seed, times) {
    const start = new Float64Array(2 * count), cells = times.slice(1).map(() => new Float64Array(2 * count)), own = new Float64Array(2);
    for (let i = 0; i < count; i++) {
      const random = Diffusion.normals(seed, first + i, 1);
      start.set(random.fill(own), 2 * i);
      cells.forEach((cell, j) => cell.set(random.fill(own, Math.sqrt(times[j] - times[j + 1])), 2 * i));
    }
    return { start, path: Diffusion.brownian(times, cells), random: (i) => Diffusion.normals(seed, first, 2 + i) };
  }

  // the forward process: exact transitions for a way with noise, the exact flow for one without
  function* sent({ sde, target, samplers, frames, grids }, first, count, seed) {
    const random = Diffusion.normals(seed, first, 5), data = Diffusion.draw(target, random, count).x, z = new Float64Array(2 * count);
    random.fill(z);
    const exact = Diffusion.denoiser(target, sde), alpha = sde.alpha(Diffusion.T_EPS), sigma = sde.sigma(Diffusion.T_EPS);
    const born = data.map((v, i) => alpha * v + sigma * z[i]);
    for (const [p, sampler] of samplers.entries()) {
      const ts = grids[p], N = ts.length - 1;
      let x = born.slice();
      frames[p][N].set(data, 2 * first);
      for (let k = N - 1; k >= 0; k--) {
        if (sampler.noise) {
          const scale = sde.alpha(ts[k]) / sde.alpha(ts[k + 1]);
          const std = Math.sqrt(Math.max(0, sde.sigma2(ts[k]) - scale * scale * sde.sigma2(ts[k + 1])));
          random.fill(z);
          x = x.map((v, i) => scale * v + std * z[i]);
        } else Diffusion.flow(exact, x, ts[k + 1], ts[k], Math.max(1, Math.round(64 / N)));
        frames[p][k].set(x, 2 * first);
        if (k % 20 === 0) yield;
      }
    }
  }

  // the flow from rings of starting points
  function flowLines({ sde, model }) {
    const starts = [0.6, 1.2, 1.9].flatMap((radius, ring) => Array.from({ length: 14 }, (_, k) => {
      const angle = ((k + ring / 3) * 2 * Math.PI) / 14;
      return [radius * Math.cos(angle), radius * Math.sin(angle)];
    }));
    const x = Float64Array.from(starts.flat()), ts = Diffusion.grid(sde, 48, "log-SNR"), lines = [x.slice()];
    Diffusion.walk(Diffusion.sampler("dpm").table(sde, ts), model, x, null, (_, y) => lines.push(y.slice()));
    return lines;
  }

  function arrows({ model, sde }, t) {
    const side = 15, x = new Float64Array(2 * side * side), push = new Float64Array(2 * side * side);
    for (let i = 0; i < side * side; i++) {
      x[2 * i] = (((i % side) + 0.5) / side * 2 - 1) * State.SPAN;
      x[2 * i + 1] = ((Math.floor(i / side) + 0.5) / side * 2 - 1) * State.SPAN;
    }
    const alpha = sde.alpha(t), sigma = sde.sigma(t);
    model.at(t)(x, push);
    for (let i = 0; i < x.length; i++) push[i] = (alpha * push[i] - x[i]) / sigma;
    return { x, push };
  }

  return { build, arrows };
})();
