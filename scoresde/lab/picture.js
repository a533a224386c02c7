// What is drawn: points, density, fields and paths; the schedule's curves; the error chart.
// Everything comes in as arguments; nothing here remembers a setting.
"use strict";

const Picture = (() => {
  const SPAN = State.SPAN, CELLS = 84;
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  let colours = null;

  // the colours of the theme, read once
  function palette() {
    if (!colours) {
      colours = Object.fromEntries(["face", "ink", "muted", "line", "soft", "chain", "sde", "ode", "good"].map((c) => [c, css(`--${c}`)]));
      colours.dark = parseInt(colours.face.slice(1, 3), 16) < 128;
    }
    return colours;
  }
  const forget = () => { colours = null; cache.clear(); };

  // a context in units of CSS pixels, sharp on every screen
  function open(canvas) {
    const ratio = window.devicePixelRatio || 1, w = canvas.clientWidth, h = canvas.clientHeight;
    const wide = Math.round(w * ratio), high = Math.round(h * ratio);
    if (canvas.width !== wide || canvas.height !== high) [canvas.width, canvas.height] = [wide, high];
    const ctx = canvas.getContext("2d");
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.clearRect(0, 0, w, h);
    return { ctx, w, h };
  }

  // --- the exact density, kept for every time it was asked for ----------------------------------

  const cache = new Map();
  function densityImage(law, sde, t, key) {
    const name = `${key}|${t.toFixed(3)}`;
    if (cache.has(name)) return cache.get(name);
    const parts = Diffusion.resolve(law, sde.alpha(t), sde.sigma2(t)), values = new Float32Array(CELLS * CELLS);
    // a Gaussian is a product of two: exponentials of the columns and rows alone
    for (const p of parts) {
      const axis = (centre, sign) => Float64Array.from({ length: CELLS }, (_, i) => {
        const d = sign * (((i + 0.5) / CELLS) * 2 - 1) * SPAN - centre;
        return Math.exp(-d * d * p.rate);
      });
      const across = axis(p.cx, 1), down = axis(p.cy, -1), level = Math.exp(p.level);
      for (let j = 0; j < CELLS; j++) for (let i = 0; i < CELLS; i++) values[j * CELLS + i] += level * down[j] * across[i];
    }
    let top = 0;
    for (const v of values) if (v > top) top = v;
    const image = document.createElement("canvas");
    image.width = image.height = CELLS;
    const ctx = image.getContext("2d"), data = ctx.createImageData(CELLS, CELLS), dark = palette().dark;
    const [r, g, b] = dark ? [120, 135, 155] : [120, 135, 155];
    for (let i = 0; i < values.length; i++) {
      const shade = Math.sqrt(values[i] / (top || 1));
      data.data.set([r, g, b, Math.round((dark ? 120 : 115) * shade)], 4 * i);
    }
    ctx.putImageData(data, 0, 0);
    if (cache.size > 400) cache.delete(cache.keys().next().value);
    cache.set(name, image);
    return image;
  }

  // --- one panel --------------------------------------------------------------------------------

  const toPixel = (w) => ({ x: (v) => ((v + SPAN) / (2 * SPAN)) * w, y: (v) => ((SPAN - v) / (2 * SPAN)) * w });

  // the two frames around a moment, and how far between them
  function moment(frames, at, jump) {
    const place = Math.min(frames.length - 1, Math.max(0, at * (frames.length - 1)));
    const k = Math.min(frames.length - 2, Math.floor(place + 1e-9)), u = place - k;
    return { k, from: frames[k], to: frames[k + 1], u: jump ? (u > 0.999 ? 1 : 0) : u };
  }

  function panel(canvas, view) {
    const { ctx, w } = open(canvas), c = palette(), px = toPixel(w);
    if (view.image) {
      ctx.imageSmoothingEnabled = true;
      ctx.imageSmoothingQuality = "high";
      ctx.drawImage(view.image, 0, 0, w, w);
    }
    if (view.lines) flowLines(ctx, px, view.lines, c);
    const colour = c[view.colour];
    if (view.frames) {
      points(ctx, px, view, colour, w);
      if (view.paths) paths(ctx, px, view, colour, c);
    }
    if (view.arrows) arrows(ctx, px, view.arrows, c);
    rings(ctx, px, view, c, w);
  }

  function points(ctx, px, { frames, at, jump, ready }, colour, w) {
    const { from, to, u } = moment(frames, at, jump), size = w > 300 ? 2 : 1.5, half = size / 2;
    ctx.fillStyle = colour;
    ctx.globalAlpha = Math.min(0.75, 0.45 + 350 / Math.max(1, ready));
    const scale = w / (2 * SPAN), v = 1 - u;
    ctx.beginPath();
    for (let i = 0; i < 2 * ready; i += 2) {
      const x = (v * from[i] + u * to[i] + SPAN) * scale - half, y = (SPAN - v * from[i + 1] - u * to[i + 1]) * scale - half;
      if (x > -3 && y > -3 && x < w + 3 && y < w + 3) ctx.fillRect(x, y, size, size);
    }
    ctx.globalAlpha = 1;
  }

  // a few points with the way they came, which fades
  function paths(ctx, px, { frames, at, jump, ready, forward }, colour, c) {
    const { k, from, to, u } = moment(frames, at, jump), count = Math.min(7, ready);
    const tail = colour === c.ode ? frames.length : 40; // of a jagged path, only the last part
    ctx.lineWidth = 1.25;
    ctx.strokeStyle = c.ink;
    ctx.lineJoin = "round";
    for (let p = 0; p < count; p++) {
      const i = 2 * p, here = [(1 - u) * from[i] + u * to[i], (1 - u) * from[i + 1] + u * to[i + 1]];
      const way = [here];
      if (forward) for (let j = k + 1; j < frames.length; j++) way.push([frames[j][i], frames[j][i + 1]]);
      else for (let j = k; j >= Math.max(0, k - tail); j--) way.push([frames[j][i], frames[j][i + 1]]);
      const bands = Math.min(6, way.length - 1);
      for (let band = 0; band < bands; band++) {
        const first = Math.floor((band * (way.length - 1)) / bands), last = Math.floor(((band + 1) * (way.length - 1)) / bands);
        ctx.globalAlpha = 0.5 * (1 - band / bands) ** 1.5 + 0.03;
        ctx.beginPath();
        ctx.moveTo(px.x(way[first][0]), px.y(way[first][1]));
        for (let j = first + 1; j <= last; j++) ctx.lineTo(px.x(way[j][0]), px.y(way[j][1]));
        ctx.stroke();
      }
      ctx.globalAlpha = 1;
      ctx.fillStyle = colour;
      ctx.beginPath();
      ctx.arc(px.x(here[0]), px.y(here[1]), 3.4, 0, 7);
      ctx.fill();
      ctx.lineWidth = 1.25;
      ctx.strokeStyle = c.face;
      ctx.stroke();
      ctx.strokeStyle = c.ink;
    }
    ctx.globalAlpha = 1;
  }

  function flowLines(ctx, px, lines, c) {
    ctx.strokeStyle = c.muted;
    ctx.lineWidth = 0.9;
    ctx.globalAlpha = 0.55;
    for (let i = 0; i < lines[0].length; i += 2) {
      ctx.beginPath();
      lines.forEach((x, k) => (k ? ctx.lineTo(px.x(x[i]), px.y(x[i + 1])) : ctx.moveTo(px.x(x[i]), px.y(x[i + 1]))));
      ctx.stroke();
    }
    ctx.globalAlpha = 1;
  }

  // sigma times the score: as long as the noise that the denoiser sees in a point there, up to 2
  function arrows(ctx, px, { x, push }, c) {
    ctx.strokeStyle = c.ink;
    ctx.lineWidth = 1;
    ctx.globalAlpha = 0.6;
    ctx.beginPath();
    for (let i = 0; i < x.length; i += 2) {
      const length = Math.hypot(push[i], push[i + 1]), scale = (0.13 * Math.min(2, length)) / (length || 1);
      const dx = push[i] * scale, dy = push[i + 1] * scale, x1 = px.x(x[i] + dx), y1 = px.y(x[i + 1] + dy);
      ctx.moveTo(px.x(x[i]), px.y(x[i + 1]));
      ctx.lineTo(x1, y1);
      const angle = Math.atan2(-dy, dx), head = Math.min(4, 20 * length * scale);
      for (const side of [-0.5, 0.5]) {
        ctx.moveTo(x1, y1);
        ctx.lineTo(x1 - head * Math.cos(angle + side), y1 - head * Math.sin(angle + side));
      }
    }
    ctx.stroke();
    ctx.globalAlpha = 1;
  }

  // the modes of the data, two widths wide: what is dragged
  function rings(ctx, px, { modes, selected, guided }, c, w) {
    modes.forEach((m, k) => {
      const chosen = k === selected, aim = k === guided, radius = Math.max(5, (2 * m.width * w) / (2 * SPAN));
      ctx.strokeStyle = aim ? c.good : chosen ? c.ink : c.muted;
      ctx.lineWidth = chosen || aim ? 1.5 : 1.1;
      ctx.globalAlpha = chosen || aim ? 0.9 : 0.75;
      ctx.setLineDash(chosen ? [] : [3, 4]);
      ctx.beginPath();
      ctx.arc(px.x(m.x), px.y(m.y), radius, 0, 7);
      ctx.stroke();
      ctx.setLineDash([]);
    });
    ctx.globalAlpha = 1;
  }

  // --- the schedule -----------------------------------------------------------------------------

  function curves(canvas, { sde, ts, t, label }) {
    const { ctx, w, h } = open(canvas), c = palette(), left = 46, right = w - 46, strip = (h - 34) / 2;
    const tops = [8, strip + 20], x = (time) => left + (1 - time) * (right - left);
    const range = [14, -14], y = (v, low, high, top) => top + (1 - (v - low) / (high - low)) * strip;
    ctx.font = "12px system-ui, sans-serif";
    ctx.strokeStyle = c.line;
    ctx.lineWidth = 1;
    for (const top of tops) for (const v of [0, 1]) {
      ctx.beginPath();
      ctx.moveTo(left, top + v * strip + 0.5);
      ctx.lineTo(right, top + v * strip + 0.5);
      ctx.stroke();
    }
    ctx.globalAlpha = 0.8;
    ctx.beginPath();
    ts.forEach((time) => { ctx.moveTo(x(time), tops[1] + strip); ctx.lineTo(x(time), tops[1] + strip + 5); });
    ctx.strokeStyle = c.muted;
    ctx.stroke();
    ctx.globalAlpha = 1;
    const line = (f, low, high, top, dash) => {
      ctx.beginPath();
      for (let i = 0; i <= 240; i++) {
        const time = Math.max(2e-4, (sde.tMax * i) / 240), v = Math.min(high, Math.max(low, f(time)));
        if (i) ctx.lineTo(x(time), y(v, low, high, top));
        else ctx.moveTo(x(time), y(v, low, high, top));
      }
      ctx.setLineDash(dash);
      ctx.strokeStyle = c.ink;
      ctx.lineWidth = 1.6;
      ctx.stroke();
      ctx.setLineDash([]);
    };
    line((s) => sde.alpha(s), 0, 1, tops[0], []);
    line((s) => sde.sigma(s), 0, 1, tops[0], [5, 4]);
    line((s) => sde.logSnr(s), range[1], range[0], tops[1], []);
    const at = Math.max(2e-4, t);
    ctx.strokeStyle = c.good;
    ctx.lineWidth = 1.4;
    ctx.beginPath();
    ctx.moveTo(x(at), 2);
    ctx.lineTo(x(at), h - 12);
    ctx.stroke();
    ctx.fillStyle = c.good;
    const dots = [[sde.alpha(at), 0, 1, tops[0]], [sde.sigma(at), 0, 1, tops[0]], [Math.min(14, Math.max(-14, sde.logSnr(at))), -14, 14, tops[1]]];
    for (const [v, low, high, top] of dots) {
      ctx.beginPath();
      ctx.arc(x(at), y(v, low, high, top), 3.2, 0, 7);
      ctx.fill();
    }
    ctx.fillStyle = c.muted;
    ctx.textAlign = "right";
    ctx.fillText("1", left - 7, tops[0] + 8);
    ctx.fillText("0", left - 7, tops[0] + strip);
    ctx.fillText("14", left - 7, tops[1] + 8);
    ctx.fillText("−14", left - 7, tops[1] + strip);
    ctx.textAlign = "left";
    ctx.fillText("signal", right + 6, tops[0] + 9);
    ctx.fillText("noise", right + 6, tops[0] + strip);
    ctx.fillText("log-", right + 6, tops[1] + 9);
    ctx.fillText("SNR", right + 6, tops[1] + 23);
    ctx.textAlign = x(at) > w * 0.6 ? "right" : "left";
    ctx.fillStyle = c.good;
    ctx.fillText(label, x(at) + (x(at) > w * 0.6 ? -6 : 6), h - 1);
  }

  // --- error against evaluations ----------------------------------------------------------------

  const MARKS = ["●", "■", "▲", "◆", "○", "□"];
  function chart(canvas, result, compact) {
    const { ctx, w, h } = open(canvas), c = palette();
    const left = 44, right = w - (compact ? 14 : 150), top = 26, bottom = h - 42;
    ctx.font = "12.5px system-ui, sans-serif";
    ctx.fillStyle = c.muted;
    const low = 0.002, high = 3, most = 200, least = 3;
    const x = (v) => left + (Math.log(v / least) / Math.log(most / least)) * (right - left);
    const y = (v) => top + (Math.log(high / Math.min(high, Math.max(low, v))) / Math.log(high / low)) * (bottom - top);
    ctx.lineWidth = 1;
    for (const v of [0.01, 0.1, 1]) {
      ctx.strokeStyle = c.line;
      ctx.beginPath();
      ctx.moveTo(left, y(v));
      ctx.lineTo(right, y(v));
      ctx.stroke();
      ctx.textAlign = "right";
      ctx.fillText(String(v), left - 8, y(v) + 4);
    }
    ctx.textAlign = "left";
    ctx.fillText("distance from the truth", left - 36, 12);
    ctx.textAlign = "center";
    for (const v of [3, 5, 10, 20, 50, 100, 200]) ctx.fillText(String(v), x(v), bottom + 18);
    ctx.fillText("evaluations of the score for each point", (left + right) / 2, h - 4);
    if (!result) return;
    ctx.strokeStyle = c.muted;
    ctx.setLineDash([5, 4]);
    ctx.beginPath();
    ctx.moveTo(left, y(result.floor));
    ctx.lineTo(right, y(result.floor));
    ctx.stroke();
    ctx.setLineDash([]);
    const ends = result.entries.map((entry, i) => {
      const seen = entry.points.filter((p) => p.errors.length), colour = c[entry.sampler.view];
      ctx.strokeStyle = ctx.fillStyle = colour;
      ctx.lineWidth = 1.8;
      ctx.setLineDash([[], [7, 3], [2, 3], [7, 3, 2, 3]][i % 4]);
      ctx.globalAlpha = 0.16;
      ctx.beginPath();
      seen.forEach((p) => ctx.lineTo(x(p.evaluations), y(p.error + p.spread)));
      [...seen].reverse().forEach((p) => ctx.lineTo(x(p.evaluations), y(p.error - p.spread)));
      ctx.fill();
      ctx.globalAlpha = 1;
      ctx.beginPath();
      seen.forEach((p) => ctx.lineTo(x(p.evaluations), y(p.error)));
      ctx.stroke();
      ctx.setLineDash([]);
      ctx.textAlign = "center";
      ctx.font = "10px system-ui, sans-serif";
      seen.forEach((p) => ctx.fillText(MARKS[i % 6], x(p.evaluations), y(p.error) + 3.5));
      ctx.font = "12.5px system-ui, sans-serif";
      return { text: `${MARKS[i % 6]} ${entry.sampler.short}`, y: seen.length ? y(seen[seen.length - 1].error) : 0, colour };
    });
    if (compact) return;
    ends.push({ text: "two exact samples", y: y(result.floor), colour: c.muted });
    ends.sort((p, q) => p.y - q.y);
    ends.forEach((end, i) => { if (i) end.y = Math.max(end.y, ends[i - 1].y + 17); });
    const over = ends.length ? Math.max(0, ends[ends.length - 1].y - bottom) : 0;
    ctx.textAlign = "left";
    for (const end of ends) {
      ctx.fillStyle = end.colour;
      ctx.fillText(end.text, right + 6, end.y - over + 4);
    }
  }

  return { palette, forget, densityImage, moment, panel, curves, chart, MARKS };
})();
