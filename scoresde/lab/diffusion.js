// The numerics of the laboratory: processes, exact mixtures, samplers as tables, walks, noise.
// The same formulas as scoresde (sde.py, distributions/, samplers/), in double precision; it runs in a
// page and in node. Points are pairs of numbers one after the other in a Float64Array (2 n).
"use strict";

const Diffusion = (() => {
  const { PI, acos, atan2, cos, exp, expm1, log, log1p, max, sin, sqrt, tan } = Math;

  // --- processes: x_t = alpha x0 + sigma eps, alpha^2 + sigma^2 = 1 -----------------------------

  const preserving = (process) => ({
    ...process,
    sigma2: process.sigma2 ?? ((t) => -expm1(2 * process.logAlpha(t))),
    alpha: (t) => exp(process.logAlpha(t)),
    sigma(t) { return sqrt(this.sigma2(t)); },
    logSnr(t) { return 2 * process.logAlpha(t) - log(this.sigma2(t)); },
    lam(t) { return 0.5 * this.logSnr(t); },
    f(t) { return -0.5 * process.beta(t); },
    g2: process.beta,
  });

  // beta = lowest + (highest - lowest) t
  function linear(lowest = 0.1, highest = 20) {
    const slope = highest - lowest;
    return preserving({
      tMax: 1,
      beta: (t) => lowest + slope * t,
      logAlpha: (t) => -0.5 * t * (lowest + 0.5 * slope * t),
      timeOfLogSnr(level) {
        const B = -level > 40 ? -level : log1p(exp(-level));
        return (2 * B) / (lowest + sqrt(lowest * lowest + 2 * slope * B));
      },
    });
  }

  // alpha = cos(theta_t)/cos(theta_0), theta_t = (pi/2)(t + s)/(1 + s), up to alpha = 1e-3
  function cosine(s = 0.008) {
    const quarter = (0.5 * PI) / (1 + s), theta0 = quarter * s, cos0 = cos(theta0), sin0 = sin(theta0);
    const sigma2 = (t) => (sin(quarter * t) * sin(quarter * t + 2 * theta0)) / (cos0 * cos0);
    return preserving({
      tMax: acos(1e-3 * cos0) / quarter - s,
      beta: (t) => 2 * quarter * tan(quarter * (t + s)),
      sigma2,
      logAlpha: (t) => (t < 0.5 ? 0.5 * log1p(-sigma2(t)) : log(sin(quarter * (1 - t))) - log(cos0)),
      timeOfLogSnr(level) {
        const noise = 1 / (1 + exp(level)), signal = 1 / (1 + exp(-level));
        const c = cos0 * sqrt(signal), si = sqrt(sin0 * sin0 + cos0 * cos0 * noise);
        const rise = (cos0 * cos0 * noise) / (si * cos0 + c * sin0);
        return atan2(rise, c * cos0 + si * sin0) / quarter;
      },
    });
  }

  const constant = (rate = 10) => linear(rate, rate);
  const schedule = ({ kind, lowest, highest, rate }) =>
    kind === "cosine" ? cosine() : kind === "constant" ? constant(rate) : linear(lowest, highest);

  // --- grids: n + 1 times, decreasing -----------------------------------------------------------

  const T_EPS = 1e-3;
  const spaced = (from, to, n) => Array.from({ length: n + 1 }, (_, k) => from + ((to - from) * k) / n);

  function grid(sde, n, spacing = "time") {
    if (spacing === "time") return spaced(sde.tMax, T_EPS, n);
    const ts = spaced(sde.logSnr(sde.tMax), sde.logSnr(T_EPS), n).map((l) => sde.timeOfLogSnr(l));
    ts[0] = sde.tMax;
    ts[n] = T_EPS;
    return ts;
  }

  // --- samplers: rows  h = u x + w x0_hat,  x <- a x + sum_j b_j h_j + c z -----------------------

  const share = (sde, t, s) => -expm1(sde.logSnr(t) - sde.logSnr(s)); // of the noise at t, since s

  const ROW = {
    eulerMaruyama(sde, t, s) {
      const h = t - s, gain = (h * sde.g2(t)) / sde.sigma2(t);
      return [1 - h * sde.f(t) - gain, gain * sde.alpha(t), sqrt(h * sde.g2(t))];
    },
    pfEuler(sde, t, s) {
      const h = t - s, gain = (0.5 * h * sde.g2(t)) / sde.sigma2(t);
      return [1 - h * sde.f(t) - gain, gain * sde.alpha(t), 0];
    },
    reverseDiffusion(sde, t, s) {
      const e = share(sde, t, s), at = sde.alpha(t);
      return [2 - at / sde.alpha(s) - e, e * at, sde.sigma(t) * sqrt(e)];
    },
    ancestral: (variance) => (sde, t, s) => {
      const e = share(sde, t, s), as = sde.alpha(s);
      const v = (variance === "beta" ? sde.sigma2(t) : sde.sigma2(s)) * e;
      return [(sde.sigma2(s) / sde.sigma2(t)) * (sde.alpha(t) / as), as * e, sqrt(v)];
    },
    ddim: (eta) => (sde, t, s) => {
      const e = share(sde, t, s), ss = sde.sigma(s);
      const a = (ss / sde.sigma(t)) * sqrt(max(0, 1 - eta * eta * e));
      return [a, sde.alpha(s) - a * sde.alpha(t), eta * ss * sqrt(max(0, e))];
    },
  };

  const oneStep = (row) => (sde, ts) =>
    ts.slice(1).map((s, k) => {
      const [a, b, c] = row(sde, ts[k], s);
      return { t: ts[k], s, a, b: [b], c, u: 0, w: 1 };
    });

  // Heun in t: rows that remember velocities, u x + w x0_hat = f x - g^2/2 score
  function heun(sde, ts) {
    const at = (t, s, b) => {
      const gain = (0.5 * sde.g2(t)) / sde.sigma2(t);
      return { t, s, a: 1, b, c: 0, u: sde.f(t) + gain, w: -gain * sde.alpha(t) };
    };
    return ts.slice(1).flatMap((s, k) => {
      const h = s - ts[k];
      return [at(ts[k], s, [h, 0]), at(s, s, [0.5 * h, -0.5 * h])];
    });
  }

  // DPM-Solver++ 2M: x_s = sigma_s/sigma_t x + alpha_s (1 - e^-h) (D_0 + (D_0 - D_1)/(2 r_0))
  function secondOrder(sde, ts) {
    const lam = ts.map((t) => sde.lam(t));
    return ts.slice(1).map((s, k) => {
      const h = lam[k + 1] - lam[k], total = -expm1(-h), as = sde.alpha(s);
      const slope = k ? (0.5 * total * h) / (lam[k] - lam[k - 1]) : 0;
      const b = [as * (total + slope), -as * slope];
      return { t: ts[k], s, a: sde.sigma(s) / sde.sigma(ts[k]), b, c: 0, u: 0, w: 1 };
    });
  }

  // Song's predictor, then a Langevin step with delta = 2 r^2 sigma^2
  function predictorCorrector(sde, ts, r = 0.16) {
    const gain = 2 * r * r;
    return oneStep(ROW.reverseDiffusion)(sde, ts).flatMap((row) => [
      row,
      { t: row.s, s: row.s, a: 1 - gain, b: [gain * sde.alpha(row.s)], c: 2 * r * sde.sigma(row.s), u: 0, w: 1 },
    ]);
  }

  // name: what it is called, view: chain, sde or ode; python: the object of scoresde
  const SAMPLERS = {
    ddpm: { name: "DDPM chain, β̃", short: "DDPM β̃", view: "chain", stages: 1, noise: true,
      python: 'Ancestral("posterior")', table: oneStep(ROW.ancestral("posterior")) },
    ddpmbeta: { name: "DDPM chain, β", short: "DDPM β", view: "chain", stages: 1, noise: true,
      python: 'Ancestral("beta")', table: oneStep(ROW.ancestral("beta")) },
    em: { name: "SDE, Euler–Maruyama", short: "Euler–Maruyama", view: "sde", stages: 1, noise: true,
      python: "EulerMaruyama()", table: oneStep(ROW.eulerMaruyama) },
    pc: { name: "SDE, predictor–corrector", short: "predictor–corrector", view: "sde", stages: 2, noise: true,
      python: "PredictorCorrector(ReverseDiffusion())", table: predictorCorrector },
    ddim: { name: "DDIM", short: "DDIM", view: "ode", stages: 1, noise: false,
      python: "DDIM(eta=0.0)", table: oneStep(ROW.ddim(0)) },
    euler: { name: "ODE, Euler", short: "Euler", view: "ode", stages: 1, noise: false,
      python: "PFEuler()", table: oneStep(ROW.pfEuler) },
    heun: { name: "ODE, Heun", short: "Heun", view: "ode", stages: 2, noise: false,
      python: "PFHeun()", table: heun },
    dpm: { name: "ODE, DPM-Solver++ 2M", short: "DPM-Solver++ 2M", view: "ode", stages: 1, noise: false,
      python: "DPMSolverPP(2)", table: secondOrder },
  };

  // the sampler of a name; eta belongs to DDIM alone
  function sampler(key, eta = 0) {
    const found = SAMPLERS[key];
    if (key !== "ddim") return { key, ...found };
    const text = Number.isInteger(eta) ? eta.toFixed(1) : String(eta);
    return { key, ...found, short: `DDIM, η = ${eta}`, view: eta > 0 ? "chain" : "ode", noise: eta > 0,
      python: `DDIM(eta=${text})`, table: oneStep(ROW.ddim(eta)) };
  }

  // --- the exact denoiser of a mixture ----------------------------------------------------------

  const normalised = (weights) => {
    const total = weights.reduce((sum, w) => sum + w, 0);
    return weights.map((w) => w / total);
  };

  // modes: [{x, y, width, weight}]
  const mixture = (modes) => ({
    modes,
    weights: normalised(modes.map((m) => m.weight)),
    component(k) { return mixture([{ ...modes[k], weight: 1 }]); },
  });

  // of every component at (alpha, sigma2): centre, variance, log weight, the factor of x0_hat
  const resolve = (law, alpha, sigma2) => law.modes.map((m, k) => {
    const s2 = m.width * m.width, v = alpha * alpha * s2 + sigma2;
    return { mx: m.x, my: m.y, cx: alpha * m.x, cy: alpha * m.y, v, level: log(law.weights[k]) - log(v), gain: (alpha * s2) / v, rate: 0.5 / v };
  });

  const columns = (parts) => ["mx", "my", "cx", "cy", "level", "rate", "gain"].map((name) => Float64Array.from(parts, (p) => p[name]));

  // p_t up to the factor 1/(2 pi), at one point
  function density(parts, x, y) {
    let sum = 0;
    for (const p of parts) sum += exp(p.level - ((x - p.cx) ** 2 + (y - p.cy) ** 2) / (2 * p.v));
    return sum;
  }

  // class probabilities of one point into r
  function responsibilities(parts, x, y, r) {
    let top = -Infinity, sum = 0;
    for (let k = 0; k < parts.length; k++) {
      const p = parts[k], dx = x - p.cx, dy = y - p.cy;
      r[k] = p.level - (dx * dx + dy * dy) / (2 * p.v);
      if (r[k] > top) top = r[k];
    }
    for (let k = 0; k < parts.length; k++) sum += r[k] = exp(r[k] - top);
    for (let k = 0; k < parts.length; k++) r[k] /= sum;
    return r;
  }

  // u + w (c - u) of a class c, then the score times 1 + delta:  at(t)(x, out) fills out with x0_hat
  function denoiser(law, sde, { guided = -1, w = 1, delta = 0 } = {}) {
    const r = new Float64Array(law.modes.length);
    const mixes = guided >= 0 && w !== 1 && law.modes.length > 1;
    const inner = guided >= 0 && w === 1 ? law.component(guided) : law;
    return {
      sde, law,
      at(t) {
        const alpha = sde.alpha(t), K = inner.modes.length;
        // flat columns: this loop is where all the time goes
        const [mx, my, cx, cy, level, rate, gain] = columns(resolve(inner, alpha, sde.sigma2(t)));
        return (x, out, n = x.length) => {
          for (let i = 0; i < n; i += 2) {
            const px = x[i], py = x[i + 1];
            let hx = 0, hy = 0, sum = 0, top = -Infinity;
            for (let k = 0; k < K; k++) {
              const dx = px - cx[k], dy = py - cy[k], l = level[k] - rate[k] * (dx * dx + dy * dy);
              r[k] = l;
              if (l > top) top = l;
            }
            for (let k = 0; k < K; k++) {
              const below = r[k] - top;
              if (below < -45) continue; // e^-45: nothing in double precision
              const p = exp(below);
              sum += p;
              hx += p * (mx[k] + gain[k] * (px - cx[k]));
              hy += p * (my[k] + gain[k] * (py - cy[k]));
            }
            hx /= sum;
            hy /= sum;
            if (mixes) {
              hx += w * (mx[guided] + gain[guided] * (px - cx[guided]) - hx);
              hy += w * (my[guided] + gain[guided] * (py - cy[guided]) - hy);
            }
            if (delta) {
              hx += delta * (hx - px / alpha);
              hy += delta * (hy - py / alpha);
            }
            out[i] = hx;
            out[i + 1] = hy;
          }
        };
      },
      score(t) {
        const alpha = sde.alpha(t), sigma2 = sde.sigma2(t), hat = this.at(t);
        return (x, out, n = x.length) => {
          hat(x, out, n);
          for (let i = 0; i < n; i++) out[i] = (alpha * out[i] - x[i]) / sigma2;
        };
      },
      velocity(t) {
        const score = this.score(t), f = sde.f(t), half = 0.5 * sde.g2(t);
        return (x, out, n = x.length) => {
          score(x, out, n);
          for (let i = 0; i < n; i++) out[i] = f * x[i] - half * out[i];
        };
      },
    };
  }

  // --- noise ------------------------------------------------------------------------------------

  // normal numbers from a seed and two more integers: xoshiro128**, Box and Muller
  function normals(seed, block = 0, stream = 0) {
    let state = (seed * 0x9e3779b1 + block * 0x85ebca6b + stream * 0xc2b2ae35) | 0;
    const split = () => {
      let z = (state = (state + 0x9e3779b9) | 0);
      z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
      z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
      return z ^ (z >>> 15);
    };
    let a = split(), b = split(), c = split(), d = split();
    const bits = () => {
      const x = Math.imul(b, 5), out = Math.imul((x << 7) | (x >>> 25), 9), t = b << 9;
      c ^= a; d ^= b; b ^= c; a ^= d; c ^= t;
      d = (d << 11) | (d >>> 21);
      return out >>> 0;
    };
    const uniform = () => (bits() + 0.5) / 4294967296;
    const fill = (out, scale = 1, n = out.length) => {
      for (let i = 0; i < n; i += 2) {
        const radius = scale * sqrt(-2 * log(uniform())), angle = 2 * PI * uniform();
        out[i] = radius * cos(angle);
        out[i + 1] = radius * sin(angle);
      }
      return out;
    };
    return { uniform, fill };
  }

  // exact points of a law
  function draw(law, random, n) {
    const x = random.fill(new Float64Array(2 * n)), label = new Uint8Array(n);
    for (let i = 0; i < n; i++) {
      let u = random.uniform(), k = 0;
      while (k < law.weights.length - 1 && (u -= law.weights[k]) >= 0) k++;
      const m = law.modes[k];
      x[2 * i] = m.x + m.width * x[2 * i];
      x[2 * i + 1] = m.y + m.width * x[2 * i + 1];
      label[i] = k;
    }
    return { x, label };
  }

  // all times of several grids, decreasing, each once
  const union = (...grids) => [...new Set(grids.flat())].sort((a, b) => b - a);

  // one Brownian path of n numbers on the cells of such a union: z = (W_t - W_s)/sqrt(t - s)
  function brownian(times, increments) {
    const place = new Map(times.map((t, j) => [t, j])), n = increments[0].length, W = [new Float64Array(n)];
    increments.forEach((dW, j) => W.push(W[j].map((v, i) => v + dW[i])));
    return (t, s, z) => {
      const from = W[place.get(t)], to = W[place.get(s)], scale = 1 / sqrt(t - s);
      for (let i = 0; i < n; i++) z[i] = scale * (to[i] - from[i]);
      return z;
    };
  }
  const increments = (times, n, random) => times.slice(1).map((s, j) => random.fill(new Float64Array(n), sqrt(times[j] - s)));

  // --- walks ------------------------------------------------------------------------------------

  const FAR = 1e30; // where a walk that has left the picture for good is held: no infinities
  const held = (v) => (v > FAR ? FAR : v < -FAR ? -FAR : v === v ? v : FAR);

  // x through all rows, in place; noise(row, z, k) fills z; seen(k, x) after every row
  function walk(rows, model, x, noise, seen) {
    const n = x.length, z = new Float64Array(n);
    let past = [], hat = new Float64Array(n);
    for (let k = 0; k < rows.length; k++) {
      const { t, a, b, c, u, w } = rows[k], depth = b.length;
      const h = past.length < depth ? new Float64Array(n) : past.pop();
      model.at(t)(x, hat, n);
      for (let i = 0; i < n; i++) h[i] = u * x[i] + w * hat[i];
      past.unshift(h);
      if (c) noise(rows[k], z, k);
      const b1 = past.length > 1 ? b[1] : 0, h1 = past.length > 1 ? past[1] : h;
      for (let i = 0; i < n; i++) x[i] = held(a * x[i] + b[0] * h[i] + (b1 ? b1 * h1[i] : 0) + (c ? c * z[i] : 0));
      if (seen) seen(k, x);
    }
    return x;
  }

  // the last evaluation: (x/alpha + x0_hat)/2, which takes away the noise left at the last time
  function finish(model, x, t) {
    const alpha = model.sde.alpha(t), hat = new Float64Array(x.length);
    model.at(t)(x, hat);
    for (let i = 0; i < x.length; i++) x[i] = held(0.5 * (x[i] / alpha + hat[i]));
    return x;
  }

  // the noise of a walk: steps from a path, correctors (t = s) from numbers of their own
  const noiseOf = (path, random) => (row, z) => (row.t === row.s ? random.fill(z) : path(row.t, row.s, z));

  // the flow from t to s, by Runge and Kutta's method of order 4 on n steps even in log-SNR
  function flow(model, x, from, to, n = 160) {
    const { sde } = model, N = x.length, y = new Float64Array(N), k = [0, 1, 2, 3].map(() => new Float64Array(N));
    const ts = spaced(sde.logSnr(from), sde.logSnr(to), n).map((l) => sde.timeOfLogSnr(l));
    ts[0] = from;
    ts[n] = to;
    for (let j = 0; j < n; j++) {
      const h = ts[j + 1] - ts[j], mid = model.velocity(ts[j] + h / 2);
      const stage = (velocity, slope, step, into) => {
        for (let i = 0; i < N; i++) y[i] = x[i] + (slope ? step * slope[i] : 0);
        velocity(y, into);
      };
      stage(model.velocity(ts[j]), null, 0, k[0]);
      stage(mid, k[0], h / 2, k[1]);
      stage(mid, k[1], h / 2, k[2]);
      stage(model.velocity(ts[j + 1]), k[2], h, k[3]);
      for (let i = 0; i < N; i++) x[i] = held(x[i] + (h / 6) * (k[0][i] + 2 * k[1][i] + 2 * k[2][i] + k[3][i]));
    }
    return x;
  }

  return { T_EPS, SAMPLERS, ROW, schedule, linear, cosine, constant, grid, spaced, sampler, mixture, resolve, density,
    responsibilities, denoiser, normals, draw, union, brownian, increments, noiseOf, walk, finish, flow };
})();

if (typeof module !== "undefined") module.exports = Diffusion;
