// How good a sampler is, on paired exact samples: every exact point x0 is sent to noise in two
// ways, and has to come back. By the SDE: its forward path is drawn exactly on a fine grid, and the
// noise that would lead back along it is read off, z = (x_s - a x_t - b x0_hat)/c; coarse walks get
// the same Brownian path. By the ODE: the exact flow carries it up. What a walk brings back is then
// compared with the very points it started from, and most of the sampling noise cancels.
"use strict";

const Judge = (() => {
  const D = typeof Diffusion !== "undefined" ? Diffusion : require("./diffusion.js");
  const { sqrt, cos, sin, PI } = Math;
  const STEPS = [2, 3, 4, 6, 8, 12, 18, 27, 40, 60, 90];
  const FINE = 400, DIRECTIONS = 12;

  // the projections of points on directions over half a turn, each sorted
  function projections(x) {
    return Array.from({ length: DIRECTIONS }, (_, j) => {
      const angle = (PI * (j + 0.5)) / DIRECTIONS, c = cos(angle), s = sin(angle), out = new Float64Array(x.length / 2);
      for (let i = 0; i < out.length; i++) out[i] = c * x[2 * i] + s * x[2 * i + 1];
      return out.sort();
    });
  }

  // sliced Wasserstein distance: root mean square over directions of W2 in one dimension
  function distance(p, q) {
    let sum = 0;
    for (let j = 0; j < DIRECTIONS; j++) for (let i = 0; i < p[j].length; i++) sum += (p[j][i] - q[j][i]) ** 2;
    return sqrt(sum / (DIRECTIONS * p[0].length));
  }

  // shares of the modes; width of the points of a mode about their own mean, and how far that mean
  // is from where it should be (each over all modes; of the truth 1 and 0)
  function modes(law, target, x) {
    const n = x.length / 2, shares = law.modes.map(() => 0), r = shares.slice(), s = target.modes.map(() => 0);
    const parts = D.resolve(law, 1, 0), own = D.resolve(target, 1, 0);
    const sums = own.map(() => [0, 0, 0, 0]); // number, x, y, squares about the mode
    for (let i = 0; i < x.length; i += 2) {
      D.responsibilities(parts, x[i], x[i + 1], r).forEach((p, k) => (shares[k] += p / n));
      const among = D.responsibilities(own, x[i], x[i + 1], s), k = among.indexOf(Math.max(...among));
      const dx = x[i] - own[k].cx, dy = x[i + 1] - own[k].cy, sum = sums[k];
      sum[0] += 1;
      sum[1] += dx;
      sum[2] += dy;
      sum[3] += dx * dx + dy * dy;
    }
    let spread = 0, moved = 0;
    sums.forEach(([m, dx, dy, squares], k) => {
      if (!m) return;
      spread += Math.max(0, squares - (dx * dx + dy * dy) / m) / (2 * own[k].v * n);
      moved += Math.hypot(dx, dy) / n;
    });
    return { shares, width: sqrt(spread), moved };
  }

  // one block of pairs: x0, the start by the SDE with its path, the start by the ODE
  function* pairs(target, sde, times, random, n) {
    const exact = D.denoiser(target, sde), x0 = D.draw(target, random, n).x, z = random.fill(new Float64Array(2 * n));
    const last = times.length - 1, alpha = sde.alpha(times[last]), sigma = sde.sigma(times[last]);
    let x = x0.map((v, i) => alpha * v + sigma * z[i]);
    const encoded = D.flow(exact, x.slice(), times[last], times[0]), increments = [], hat = new Float64Array(2 * n);
    yield;
    for (let j = last - 1; j >= 0; j--) {
      const t = times[j], s = times[j + 1], [a, b, c] = D.ROW.ancestral("beta")(sde, t, s);
      const scale = sde.alpha(t) / sde.alpha(s), std = sqrt(Math.max(0, sde.sigma2(t) - scale * scale * sde.sigma2(s)));
      random.fill(z);
      const up = x.map((v, i) => scale * v + std * z[i]);
      exact.at(t)(up, hat);
      increments[j] = x.map((v, i) => (sqrt(t - s) * (v - a * up[i] - b * hat[i])) / c);
      x = up;
      if (j % 60 === 0) yield;
    }
    return { x0, noisy: x, encoded, path: D.brownian(times, increments) };
  }

  // yields while it works, with the table after every seed, and returns it
  function* judge({ law, sde, spacing, options, samplers, steps = STEPS, seeds = 3, n = 1000, seed = 1 }) {
    const guided = options.guided ?? -1, w = options.w ?? 1;
    const BLOCK = Math.max(20, Math.min(200, Math.round(500 / law.modes.length))); // a few ms of work each
    const target = guided >= 0 && w !== 0 ? law.component(guided) : law;
    const model = D.denoiser(law, sde, options);
    const grids = new Map(steps.map((N) => [N, D.grid(sde, N, spacing)]));
    const times = D.union(D.grid(sde, FINE, "log-SNR"), ...grids.values());
    const entries = samplers.map((sampler) => ({ sampler, points: steps.map((N) => ({ N, errors: [], shift: [], widths: [] })) }));
    const floors = [], total = seeds * (1 + samplers.length * steps.length);
    const mean = (v) => v.reduce((sum, e) => sum + e, 0) / v.length;
    const spread = (v) => sqrt(mean(v.map((e) => (e - mean(v)) ** 2)));
    const table = () => {
      for (const entry of entries) for (const p of entry.points) {
        p.evaluations = p.N * entry.sampler.stages + 1;
        Object.assign(p, { error: mean(p.errors), spread: spread(p.errors), weights: mean(p.shift), width: mean(p.widths) });
      }
      return { entries, floor: mean(floors), steps, seeds, n };
    };
    let done = 0;
    for (let run = 0; run < seeds; run++) {
      const blocks = [];
      for (let first = 0; first < n; first += BLOCK) {
        const random = D.normals(seed, run * 1000 + first, 7), count = Math.min(BLOCK, n - first);
        blocks.push(yield* pairs(target, sde, times, random, count));
        yield { done: done / total };
      }
      const join = (part) => Float64Array.from(blocks.flatMap((b) => Array.from(part(b))));
      const exact = join((b) => b.x0), sorted = projections(exact), truth = modes(law, target, exact);
      const other = D.draw(target, D.normals(seed, run, 8), n).x;
      floors.push(distance(sorted, projections(other)));
      yield { done: ++done / total };
      for (const entry of entries) {
        for (const point of entry.points) {
          const ts = grids.get(point.N), rows = entry.sampler.table(sde, ts), ends = [];
          for (const [i, block] of blocks.entries()) {
            const x = (entry.sampler.noise ? block.noisy : block.encoded).slice();
            const correct = D.normals(seed, run * 1000 + i, 9);
            D.walk(rows, model, x, D.noiseOf(block.path, correct));
            ends.push(D.finish(model, x, ts[ts.length - 1]));
            yield { done: done / total };
          }
          const x = Float64Array.from(ends.flatMap((e) => Array.from(e))), found = modes(law, target, x);
          point.errors.push(distance(projections(x), sorted));
          point.shift.push(0.5 * found.shares.reduce((sum, p, k) => sum + Math.abs(p - truth.shares[k]), 0));
          point.widths.push(found.width / truth.width);
          point.shares = found.shares;
          yield { done: ++done / total };
        }
      }
      yield { done: done / total, table: table() };
    }
    return table();
  }

  // the whole of a generator at once (for tests)
  function all(generator) {
    let step = generator.next();
    while (!step.done) step = generator.next();
    return step.value;
  }

  return { STEPS, judge, all, distance, projections, modes, pairs };
})();

if (typeof module !== "undefined") module.exports = Judge;
