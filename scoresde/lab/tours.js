// Seven short tours: each step sets the laboratory, says what to look at, and then what it means.
// "book" is a page of the documentation, with the label of the equation that the tour shows.
"use strict";

const Tours = (() => {
  const TOURS = [
    {
      name: "Noise, and back", book: ["theory/forward", "equation-forward-path", "the path x = αx₀ + σε"],
      steps: [
        { set: { law: "three", N: 60, a: "ddpm", b: "ddim", forward: true, at: 1 }, play: true,
          text: "The points are data that turn into noise (Play shows it again): each is multiplied by the signal α, which falls to 0, and gets noise of width σ, which rises to 1. Watch both curves below the pictures.",
          answer: "At the left end nothing of the data is left but one round cloud. On the left each point jitters on its way, as an SDE; on the right it glides along the flow. The cloud is the same at every time." },
        { set: { law: "three", N: 60, a: "ddpm", b: "ddim", forward: false, at: 0 }, play: true,
          text: "Now backwards, from fresh noise. Nobody tells a point where it came from. What does it follow?",
          answer: "The score: where the density at this time rises. Early on it says little; where log-SNR is near 0 the modes become visible and the points decide." },
        { set: { law: "three", N: 60, a: "ddpm", b: "ddim", arrows: true, paths: false, at: 0.55 },
          text: "The arrows are the score times σ. Move the slider between noise and data.",
          answer: "In noise all arrows point to the middle, since the best guess for a point is the mean of all data. Later each points to the nearest mode. That is all a diffusion model has to learn." },
      ],
    },
    {
      name: "How many steps?", book: ["theory/solvers", "equation-solvers-master", "the step as an integral"],
      steps: [
        { set: { law: "two", N: 5, a: "em", b: "ddim", at: 1 },
          text: "Five steps. On the left Euler–Maruyama, the plain discretisation of the reverse SDE; on the right DDIM. Which is nearer to the grey truth? Look at the widths under the pictures.",
          answer: "Euler–Maruyama ends four times too wide: it treats the drift as constant over a fifth of the way. DDIM draws its points into a thin bridge between the modes: wrong as well, but close to the data, since it solves the linear part of the equation exactly." },
        { set: { law: "two", N: 50, a: "em", b: "ddim", at: 1 },
          text: "Fifty steps. What changed?",
          answer: "Both come close to width 1. The number of steps N is the number of times the score is asked for, which for a trained model means running a large network: it is the price of a sample. More steps buy a smaller error, and different samplers pay different prices for the same error." },
        { set: { law: "two", N: 20, a: "em", b: "heun", spacing: "time", at: 1 }, measure: ["em", "ddim", "heun"],
          text: "The chart “How good is it?” below measures Euler–Maruyama, DDIM and Heun at many numbers of evaluations. Which line is steepest?",
          answer: "Heun’s: its error falls with the square of the step, that of the others with the step. Order is the slope in this picture." },
      ],
    },
    {
      name: "Fresh noise: η", book: ["theory/solvers", "equation-solvers-reverse", "one family from ODE to SDE"],
      steps: [
        { set: { law: "two", N: 12, a: "ddim", etaA: 0, b: "ddim", etaB: 1, at: 0 }, play: true,
          text: "DDIM twice: without fresh noise (η = 0) and with all of it (η = 1). Both start from the same points. Follow a single path.",
          answer: "At η = 0 the way is smooth, and the start decides where it ends: run it again and it is the same. At η = 1 each step forgets a little and draws anew; where a point started says little about where it ends." },
        { set: { law: "two", N: 12, a: "ddim", etaA: 1, b: "ddpm", at: 1 },
          text: "Now η = 1 beside the DDPM chain with its small variance β̃, under the same noise. Find a difference.",
          answer: "There is none: they are the same three numbers in every step (see the table below). η goes from the flow to the chain; all η aim at the same law." },
        { set: { law: "two", N: 12, a: "ddim", etaA: 0, b: "ddim", etaB: 1, at: 1 },
          text: "Twelve steps, η = 0 against η = 1. Compare the widths.",
          answer: "With few steps and an exact score, less fresh noise is more accurate: noise drawn late has no steps left to be corrected. So is noise useless? Tour 7 says when it is not." },
      ],
    },
    {
      name: "One noise, two views", book: ["theory/forward", "equation-forward-exact", "β of a step from β(t)"],
      steps: [
        { set: { law: "ring", N: 10, a: "ddpmbeta", b: "em", at: 1 },
          text: "The Markov chain of DDPM on the left, the reverse SDE by Euler–Maruyama on the right: same start, same Brownian path. Ten steps.",
          answer: "Far apart. Their three numbers a, b, c in the table below differ by a lot: a step of this length is not small." },
        { set: { law: "ring", N: 200, a: "ddpmbeta", b: "em", at: 1 },
          text: "Two hundred steps, everything else as before.",
          answer: "Point for point nearly the same picture, and nearly the same three numbers. The chain is the SDE seen N times; what differs is of the order of the step." },
        { set: { law: "ring", N: 10, times: 10, a: "ddpmbeta", b: "ddpmbeta", at: 1 },
          text: "The same chain with 10 steps and with 100, on one Brownian path: the long step’s noise is the sum of ten short ones.",
          answer: "Four points in five land in the same mode, where chance alone would bring one in eight: they were driven by the same noise. Comparing on one path is how the laboratory sees small errors under large noise." },
      ],
    },
    {
      name: "The schedule", book: ["theory/forward", "equation-forward-log-snr", "log-SNR: the schedule taken out"],
      steps: [
        { set: { law: "two", N: 15, schedule: "linear", a: "ddim", b: "euler", at: 0.5 },
          text: "The schedule says how fast data become noise. Look at the curves: steps (the ticks) are even in time. Where does log-SNR fall fast?",
          answer: "At the data end, within the last step or two. There the noise passes the width of a mode, and how wide the modes come out is decided." },
        { set: { law: "two", N: 15, schedule: "constant", rate: 10, a: "ddim", b: "euler", at: 1 },
          text: "A constant rate. What happens to the modes?",
          answer: "With DDIM they sit too near each other, with Euler they are twice too wide: when the last step begins, the noise is still larger than a mode. The same samplers, the same N, another schedule." },
        { set: { law: "two", N: 15, schedule: "constant", rate: 10, spacing: "log-SNR", a: "ddim", b: "euler", at: 1 },
          text: "The same constant rate, but steps even in log-SNR. Then choose the linear and the cosine schedule, and compare.",
          answer: "The damage is undone. For DDIM all schedules now agree within a few per cent: it knows nothing but log-SNR, and for it a schedule is no more than a choice of where the steps are. Euler, which steps in t, still notices." },
      ],
    },
    {
      name: "Guidance", book: ["theory/guidance", "equation-guidance-ode", "what w samples"],
      steps: [
        { set: { law: "three", N: 60, guided: 0, w: 1, a: "ddpm", b: "ddim", at: 0 }, play: true,
          text: "Guided towards the wide mode with strength 1. Green is the class. Is anything left of the other modes?",
          answer: "No. At w = 1 guidance is Bayes’ rule, and what comes out is the class, as it is." },
        { set: { law: "three", N: 60, guided: 0, w: 6, a: "ddpm", b: "ddim", at: 1 },
          text: "Strength 6. What happened to the class?",
          answer: "It moved away from the others, on the right by twice its width, and shrank. More than 1 buys certainty and pays with diversity: the samples are no longer those of the class." },
        { set: { law: "three", N: 60, guided: 0, w: 12, a: "ddpm", b: "ddim", at: 1 },
          text: "Strength 12, the chain on the left and the flow on the right. Do they agree?",
          answer: "No: the flow ends tighter than the chain, and farther away. At w = 1 all ways back aim at one law. At any other strength there is no such law, and each way ends in its own." },
      ],
    },
    {
      name: "A wrong score", book: ["theory/guidance", "guidance-ex-temperature", "what a score times a constant samples"],
      steps: [
        { set: { law: "two", N: 150, a: "em", b: "heun", delta: 0, at: 1 },
          text: "A trained network is never exact. Here are many steps with the exact score: stochastic on the left, the flow on the right. Note the widths.",
          answer: "Both are right. With enough steps all samplers are." },
        { set: { law: "two", N: 150, a: "em", b: "heun", delta: 0.1, at: 1 },
          text: "Now every score is 10 % too long. Which way suffers more?",
          answer: "The flow: its modes come out at less than two thirds of their width, the SDE’s at nine tenths. The flow adds up the error over the whole way. The SDE forgets: fresh noise widens what the error has narrowed, and only the error of the last part is seen." },
        { set: { law: "two", N: 150, a: "em", b: "heun", delta: -0.1, at: 1 },
          text: "And 10 % too short?",
          answer: "The same, the other way round: the flow’s modes come out 1.7 times too wide, the SDE’s 1.1 times. Few steps and a good score: take the flow. Many steps or a rough score: fresh noise repairs." },
      ],
    },
  ];
  return TOURS;
})();

if (typeof module !== "undefined") module.exports = Tours;
