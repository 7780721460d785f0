// Small charts over time: stacked bars or lines, with a crosshair that tells the values below the pointer.
// What is drawn is in the figure's `data-chart`; a `data-sample` is added to what was sampled before.

import { duration } from "./times.js";

const SVG = "http://www.w3.org/2000/svg";
const LEFT = 46;
const BOTTOM = 20;
const KEEP_SECONDS = 900;

const hour = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const exact = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const plain = new Intl.NumberFormat("en");

const UNITS = {
  count: { axis: (value) => compact.format(value), tell: (value) => plain.format(value) },
  ms: { axis: (value) => (value ? duration(value).replace(/\.0 /, " ").replace(/ m 0 s$/, " m") : "0"), tell: duration },
};

function make(name, attributes, parent) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  parent?.append(element);
  return element;
}

// A step of 1, 2 or 5, or of what people count time in.
function niceStep(most, unit) {
  const rough = most / 3;
  if (unit === "ms" && rough > 10_000) {
    return [15e3, 30e3, 60e3, 120e3, 300e3, 600e3, 1800e3, 3600e3, 7200e3, 36e5 * 6, 864e5].find((step) => step >= rough) ?? 864e6;
  }
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((one) => one * power >= rough) * power;
  return unit === "count" ? Math.max(1, step) : step;
}

export class Chart {
  constructor(figure) {
    this.figure = figure;
    this.legend = document.createElement("div");
    this.legend.className = "chart-legend";
    this.svg = make("svg", { role: "img" }, null);
    figure.append(this.legend, this.svg);
    this.at = null;
    this.samples = this.recall();
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.point(null));
    new ResizeObserver(() => this.draw()).observe(figure);
    this.update();
  }

  // ---- what is drawn

  update() {
    if (this.figure.dataset.sample) this.sample(JSON.parse(this.figure.dataset.sample));
    else this.spec = JSON.parse(this.figure.dataset.chart);
    this.draw();
  }

  recall() {
    try {
      return JSON.parse(sessionStorage.getItem("worker-depth") ?? "[]");
    } catch {
      return [];
    }
  }

  sample(taken) {
    const last = this.samples.at(-1);
    if (!last || taken.at > last.at) this.samples.push(taken);
    this.samples = this.samples.filter((one) => one.at > taken.at - KEEP_SECONDS);
    try {
      sessionStorage.setItem("worker-depth", JSON.stringify(this.samples));
    } catch {
      // Without storage the chart begins anew on each page.
    }
    const names = Object.keys(taken.values);
    this.spec = {
      kind: "lines",
      unit: "count",
      exact: true,
      x: this.samples.map((one) => one.at),
      series: names.map((name) => ({ name, values: this.samples.map((one) => one.values[name] ?? null) })),
      from: Math.min(this.samples[0].at, taken.at - 120),
      to: taken.at,
    };
  }

  // ---- drawing

  draw() {
    const { width, height } = this.svg.getBoundingClientRect();
    if (!width || !this.spec) return;
    const { x, series, kind, unit } = this.spec;
    const stacked = kind === "bars";
    const sums = x.map((_, i) => (stacked ? series.reduce((sum, one) => sum + (one.values[i] ?? 0), 0) : Math.max(...series.map((one) => one.values[i] ?? 0))));
    const most = Math.max(...sums, unit === "ms" ? 1 : 3);
    const step = niceStep(most, unit);
    const top = Math.ceil(most / step) * step;
    const floor = height - BOTTOM;
    const slot = stacked ? (width - LEFT) / x.length : 0;
    const begin = this.spec.from ?? x[0];
    const end = this.spec.to ?? x.at(-1);
    this.y = (value) => floor - (value / top) * (floor - 4);
    this.x = (at) => LEFT + slot / 2 + ((at - begin) / (end - begin || 1)) * (width - LEFT - slot);
    this.size = { width, floor, slot };
    this.svg.replaceChildren();
    this.drawAxes(step, top, begin, end);
    if (stacked) this.drawBars();
    else series.forEach((one) => this.drawLine(one));
    this.cross = make("g", {}, this.svg);
    this.tell();
  }

  drawAxes(step, top, begin, end) {
    const { width, floor } = this.size;
    for (let value = 0; value <= top + step / 2; value += step) {
      const y = Math.round(this.y(value)) + 0.5;
      make("line", { class: "grid", x1: LEFT, x2: width, y1: y, y2: y }, this.svg);
      make("text", { x: LEFT - 8, y: y + 4, "text-anchor": "end" }, this.svg).textContent = UNITS[this.spec.unit].axis(value);
    }
    const every = [60, 120, 300, 600, 900, 1200].find((one) => ((end - begin) / one) * 64 <= width - LEFT) ?? 1800;
    for (let at = Math.ceil(begin / every) * every; at <= end; at += every) {
      const x = this.x(at);
      if (x > LEFT + 12 && x < width - 12) make("text", { x, y: floor + 16, "text-anchor": "middle" }, this.svg).textContent = hour.format(at * 1000);
    }
  }

  drawBars() {
    const { slot } = this.size;
    const wide = Math.max(1, slot - (slot > 5 ? 2 : 0.5));
    this.spec.x.forEach((at, i) => {
      let below = 0;
      for (const one of this.spec.series) {
        const value = one.values[i];
        if (!value) continue;
        const y = this.y(below + value);
        make("rect", { class: `bar ${one.name}`, x: this.x(at) - wide / 2, width: wide, y, height: Math.max(1, this.y(below) - y) }, this.svg);
        below += value;
      }
    });
  }

  drawLine(one) {
    const points = this.spec.x.map((at, i) => (one.values[i] == null ? null : [this.x(at), this.y(one.values[i])]));
    let path = "";
    points.forEach((point, i) => {
      if (!point) return;
      path += `${path && points[i - 1] ? "L" : "M"}${point[0].toFixed(1)} ${point[1].toFixed(1)}`;
      const alone = !points[i - 1] && !points[i + 1];
      if (alone) make("circle", { class: one.name, cx: point[0], cy: point[1], r: 2.5 }, this.svg);
    });
    make("path", { class: `line ${one.name}`, d: path }, this.svg);
  }

  // ---- the pointer

  point(event) {
    if (!event || !this.x) {
      this.at = null;
    } else {
      const pointer = event.clientX - this.svg.getBoundingClientRect().left;
      const distances = this.spec.x.map((at) => Math.abs(this.x(at) - pointer));
      this.at = this.spec.x[distances.indexOf(Math.min(...distances))];
    }
    this.tell();
  }

  // The newest values, or those at the pointer.
  tell() {
    const { x, series, unit } = this.spec;
    let index = this.at === null ? -1 : x.indexOf(this.at);
    this.cross?.replaceChildren();
    if (index >= 0) {
      const at = Math.round(this.x(x[index])) + 0.5;
      make("line", { class: "cross", x1: at, x2: at, y1: 0, y2: this.size.floor }, this.cross);
    } else {
      index = x.length - 1;
      while (index > 0 && series.every((one) => one.values[index] == null)) index -= 1;
    }
    const parts = series.map((one) => {
      const part = document.createElement("span");
      const key = document.createElement("i");
      key.className = one.name;
      const value = document.createElement("b");
      value.textContent = one.values[index] == null ? "–" : UNITS[unit].tell(one.values[index]);
      part.append(key, one.name, " ", value);
      return part;
    });
    if (this.at !== null) {
      const when = document.createElement("span");
      when.textContent = (this.spec.exact ? exact : hour).format(x[index] * 1000);
      parts.push(when);
    }
    this.legend.replaceChildren(...parts);
    const said = series.map((one) => `${one.name} ${one.values[index] ?? "none"}`).join(", ");
    this.svg.setAttribute("aria-label", `${this.figure.querySelector("figcaption").textContent}: ${said}`);
  }
}

const charts = new WeakMap();

export function drawCharts(root) {
  for (const figure of root.querySelectorAll("figure.chart")) {
    const chart = charts.get(figure);
    if (chart) chart.update();
    else charts.set(figure, new Chart(figure));
  }
}
