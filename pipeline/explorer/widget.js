// The attention explorer's page. It draws a scene (numbers) by a state (choices), and knows of a kernel, or of a page's
// stored answers, only through a host: get(name), set(name, value), on(name, callback). A new state asks for a new scene.

const VIRIDIS = ["440154", "481a6c", "472f7d", "414487", "39568c", "31688e", "2a788e", "23888e", "1f988b", "22a884",
  "35b779", "54c568", "7ad151", "a5db36", "d2e21b", "fde725"];
const [MORE, LESS, MARK] = ["224,120,10", "125,95,215", "#e0312d"];  // seen on white and on black
const ADVERSARIAL = "#cf6f00";
const STYLES = [["#0b7ad1", ""], ["#cf6f00", "7 4"], ["#1a9170", "2 3"]];  // of models: colour and dashes
const DRAG = 3;  // pixels below which a drag is a click

// ---- numbers ----

const LADDER = VIRIDIS.map(hex => [0, 2, 4].map(at => parseInt(hex.slice(at, at + 2), 16)));
const WEIGHTS = Array.from({ length: 256 }, (_, step) => {
  const at = step / 255 * (LADDER.length - 1), low = Math.min(Math.floor(at), LADDER.length - 2);
  return LADDER[low].map((from, k) => Math.round(from + (LADDER[low + 1][k] - from) * (at - low)));
});

const bytes = value => value instanceof DataView
  ? value.buffer.slice(value.byteOffset, value.byteOffset + value.byteLength) : value;
const floats = value => new Float32Array(bytes(value));
const shares = (value, most, fine) => Float32Array.from(new Int16Array(bytes(value)), one => one * most / fine);

const short = value => value === 0 ? "0" : Math.abs(value) < 1e-3 || Math.abs(value) >= 1e4
  ? value.toExponential(1) : String(+value.toPrecision(3));

function nice(low, high, count, whole = false) {
  const rough = Math.max((high - low) / Math.max(1, count), whole ? 1 : 1e-12);
  const power = 10 ** Math.floor(Math.log10(rough)), step = power * [1, 2, 5, 10].find(k => k * power >= rough * 0.999);
  const ticks = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + 1e-9 * step; at += step) ticks.push(+at.toPrecision(9));
  return ticks;
}

// What is on show of a scene: maps as numbers, and the frames that are marked, in whole pixels of a map.
export function reading(scene, state, about) {
  const [first, last] = scene.window, { step } = scene, size = Math.ceil((last - first) / step);
  const counts = Array.from({ length: size }, (_, k) => Math.min(step, last - first - k * step));
  const wanted = map => state.modalities.includes(map.modality) && state.models.includes(scene.models[map.model].key)
    && (state.head === "mean" ? map.head === null : state.head === "all" ? map.head !== null : map.head === state.head);
  const maps = scene.maps.filter(wanted).map(map => {
    const clean = shares(map.clean, map.most, about.fine), change = shares(map.change, map.widest, about.fine);
    const received = floats(map.received), frames = received.length / 2;
    const name = `${map.modality}, ${map.head ? `head ${map.head}` : `average of ${about.heads} heads`}`;
    return { ...map, title: scene.models[map.model].title, name, values: { clean, adversarial: clean.map((one, k) => one + change[k]), difference: change },
      received: [received.subarray(0, frames), received.subarray(frames)] };
  });
  const most = Math.max(...maps.map(map => map.most)) || 1, widest = Math.max(...maps.map(map => map.widest)) || most;
  let marked = state.frames;
  if (!marked) {
    const best = maps.length ? maps[0].received[0].indexOf(Math.max(...maps[0].received[0])) + 1 : 1;
    marked = [best, best];
  }
  const block = frame => Math.floor((Math.min(Math.max(frame - 1, first), last - 1) - first) / step);
  const from = block(Math.min(...marked)), to = block(Math.max(...marked)) + 1;
  return { maps, size, counts, first, last, step, most, reach: state.scale === "maps" ? most : widest, from, to,
    marked: [first + from * step + 1, Math.min(last, first + to * step)] };
}

// The attention that the marked frames receive from each frame of the window.
export function attending(values, { size, counts, from, to }) {
  return Array.from({ length: size }, (_, row) => {
    let sum = 0;
    for (let column = from; column < to; column++) sum += values[row * size + column] * counts[column];
    return sum;
  });
}

// Where a curve first falls below 0, on the line between two of its points; null if it does not.
export function crossing(xs, ys) {
  for (let k = 1; k < ys.length; k++)
    if (ys[k - 1] >= 0 && ys[k] < 0) return xs[k - 1] + (xs[k] - xs[k - 1]) * ys[k - 1] / (ys[k - 1] - ys[k]);
  return null;
}

const span = ([a, b]) => a === b ? `frame ${a}` : `frames ${a}–${b}`;
const cell = (of, k) => span([of.first + k * of.step + 1, Math.min(of.last, of.first + (k + 1) * of.step)]);

// ---- elements ----

function element(space, tag, attributes, children) {
  const made = space ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes))
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) made.setAttribute(name, value === true ? "" : value);
  made.append(...children.filter(child => child !== null));
  return made;
}
const h = (tag, attributes = {}, ...children) => element(false, tag, attributes, children);
const s = (tag, attributes = {}, ...children) => element(true, tag, attributes, children);
const text = (x, y, content, attributes = {}) =>
  s("text", { x, y, fill: "currentColor", "font-size": 11, "text-anchor": "middle", ...attributes }, content);
const line = (x1, y1, x2, y2, attributes = {}) => s("line", { x1, y1, x2, y2, stroke: "currentColor", ...attributes });

// ---- pictures ----
// A panel is a caption and a drawing that is made for the width that the page gives it: draw(plot, width).

const panel = (caption, draw, kind = "") =>
  Object.assign(h("figure", { class: `panel ${kind}` }, h("figcaption", {}, caption), h("div", { class: "plot" })), { draw });

function frameAxis(svg, of, left, width, y, name) {
  const x = frame => left + (frame - 1 + 0.5 - of.first) / (of.last - of.first) * width;
  for (const frame of nice(of.first + 1, of.last, width / 34, true))
    svg.append(line(x(frame), y, x(frame), y + 3), text(x(frame), y + 14, String(frame)));
  svg.append(text(left + width / 2, y + 27, name));
  return x;
}

function mapPanel(kind, map, of, pick, tip, small) {
  const mse = `MSE ${map.mse.toExponential(1)}`, caption = kind !== "difference" ? kind : small ? mse : `difference, ${mse}`;
  return panel(caption, (plot, width) => {
    const left = small ? 0 : 26, side = Math.max(20, width - left), { size } = of, values = map.values[kind];
    const canvas = h("canvas", { width: size, height: size, role: "img", "aria-label":
      `${kind} map of ${map.title}, ${map.name}: largest ${short(Math.max(...values))}` });
    const pixels = new ImageData(size, size), { data } = pixels;
    for (let k = 0, at = 0; k < values.length; k++, at += 4) {
      if (kind === "difference") {
        const sign = (values[k] > 0 ? MORE : LESS).split(",");
        data[at] = sign[0]; data[at + 1] = sign[1]; data[at + 2] = sign[2];
        data[at + 3] = Math.min(255, Math.abs(values[k]) / of.reach * 255);
      } else {
        const colour = WEIGHTS[Math.max(0, Math.min(255, Math.round(values[k] / of.most * 255)))];
        data[at] = colour[0]; data[at + 1] = colour[1]; data[at + 2] = colour[2]; data[at + 3] = 255;
      }
    }
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    Object.assign(canvas.style, { left: `${left}px`, width: `${side}px`, height: `${side}px` });
    const svg = s("svg", { width, height: side + (small ? 4 : 32), "aria-hidden": "true" });
    svg.append(s("rect", { x: left, y: 0, width: side, height: side, fill: "none", stroke: "currentColor", "stroke-opacity": 0.4 }));
    const scale = side / size;
    svg.append(s("rect", { x: left + of.from * scale, y: 0.5, width: Math.max(1, (of.to - of.from) * scale), height: side - 1,
      fill: "none", stroke: MARK, "stroke-width": 1.5 }));
    if (!small) {
      frameAxis(svg, of, left, side, side, "attended");
      const y = frame => (frame - 0.5 - of.first) / (of.last - of.first) * side;
      for (const frame of nice(of.first + 1, of.last, side / 26, true))
        svg.append(text(left - 4, y(frame) + 4, String(frame), { "text-anchor": "end" }));
    }
    plot.append(canvas, svg);
    const at = (event, box) => [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]
      .map(share => Math.max(0, Math.min(size - 1, Math.floor(share * size))));
    pick(plot, () => { const box = canvas.getBoundingClientRect(); return event => at(event, box)[0]; });
    plot.addEventListener("pointermove", event => {
      const [column, row] = at(event, canvas.getBoundingClientRect()), value = values[row * size + column];
      tip(event, kind === "difference"
        ? `attention of ${cell(of, row)} to ${cell(of, column)} changes by ${short(value)}`
        : `${cell(of, row)} ${of.step > 1 ? "attend" : "attends"} to ${cell(of, column)} with ${short(value)}`);
    });
  }, `map ${kind}`);
}

// Lines or bars over frames (when `of` is given) or over numbers from `low`; each line: {xs, ys, colour, dash, name}.
function chartPanel(caption, { of, lines = [], bars, high, low = 0, floor = 0, top = 0, xName, marks = [], pick, tip, summary }) {
  return panel(caption, (plot, width) => {
    const left = 44, right = 6, above = 6, tall = 92, inner = Math.max(20, width - left - right);
    const svg = s("svg", { width, height: above + tall + 32, role: "img", "aria-label": summary ?? caption });
    const y = value => above + tall - (value - floor) / ((top - floor) || 1) * tall;
    for (const tick of nice(floor, top, 3))
      svg.append(line(left, y(tick), left + inner, y(tick), { "stroke-opacity": tick === 0 ? 0.8 : 0.2 }),
        text(left - 5, y(tick) + 4, short(tick), { "text-anchor": "end" }));
    let x;
    if (of) x = frameAxis(svg, of, left, inner, above + tall, xName);
    else {
      x = value => left + (value - low) / ((high - low) || 1) * inner;
      for (const tick of nice(low, high, inner / 50))
        svg.append(line(x(tick), above + tall, x(tick), above + tall + 3), text(x(tick), above + tall + 14, short(tick)));
      svg.append(text(left + inner / 2, above + tall + 27, xName));
    }
    if (of && pick) {
      const unit = inner / (of.last - of.first);
      svg.append(s("rect", { x: x(of.marked[0]) - unit / 2, y: above, width: unit * (of.marked[1] - of.marked[0] + 1), height: tall,
        fill: MARK, "fill-opacity": 0.12, stroke: MARK }));
    }
    if (bars) {
      const unit = inner / (of.last - of.first);
      bars.forEach((value, k) => k >= of.first && k < of.last && svg.append(s("rect", { x: x(k + 1) - unit * 0.4, y: y(value),
        width: unit * 0.8, height: Math.max(0, above + tall - y(value)), fill: "currentColor", "fill-opacity": 0.55 })));
    }
    for (const { xs, ys, colour = "currentColor", dash = "" } of lines) {
      const points = xs.map((at, k) => ys[k] === null ? "" : `${x(at).toFixed(1)},${y(ys[k]).toFixed(1)}`).join(" ").trim();
      svg.append(s("polyline", { points, fill: "none", stroke: colour, "stroke-width": 2, "stroke-dasharray": dash }));
    }
    for (const mark of marks)
      svg.append(mark.y === undefined
        ? line(x(mark.x), above, x(mark.x), above + tall, { stroke: MARK, "stroke-width": 1.5 })
        : s("circle", { cx: x(mark.x), cy: y(mark.y), r: 4.5, fill: "none", stroke: mark.colour, "stroke-width": 2.5 }));
    plot.append(svg);
    if (!of) return;
    const frame = (event, from) => Math.max(of.first, Math.min(of.last - 1,
      of.first + Math.floor((event.clientX - from - left) / inner * (of.last - of.first))));
    const edge = () => svg.getBoundingClientRect().left;
    if (pick) pick(plot, () => { const from = edge(); return event => Math.floor((frame(event, from) - of.first) / of.step); });
    plot.addEventListener("pointermove", event => tip(event, frame(event, edge())));
  }, "chart");
}

function movedPanel(moved, open, tip, current, has) {
  const count = moved.ids.length, [one, two] = [floats(moved.moved).subarray(0, count), floats(moved.moved).subarray(count)];
  const fooled = new Uint8Array(bytes(moved.fooled)), [across, upwards] = [one, two].map(values => Math.max(...values) || 1);
  const few = count < moved.of ? `${count.toLocaleString("en")} of ${moved.of.toLocaleString("en")}` : `all ${count.toLocaleString("en")}`;
  return panel(`how far the pipeline's attack moves attention, ${few} test videos; click to open; ○ not fooled, ● one model, ■ both`,
    (plot, width) => {
      const left = 44, side = Math.max(60, width - left - 6), tall = 150, scale = Math.min(2, devicePixelRatio || 1);
      const canvas = h("canvas", { width: Math.round(side * scale), height: Math.round(tall * scale), role: "img",
        "aria-label": `each test video by how far attention moved, ${moved.titles.join(" across, ")} upwards` });
      Object.assign(canvas.style, { left: `${left}px`, top: "6px", width: `${side}px`, height: `${tall}px` });
      const pen = canvas.getContext("2d"), ink = getComputedStyle(plot).color;
      pen.scale(scale, scale);
      // square roots spread what lies near 0
      const place = k => [4 + Math.sqrt(one[k] / across) * (side - 8), tall - 4 - Math.sqrt(two[k] / upwards) * (tall - 8)];
      for (let k = 0; k < count; k++) {
        const [x, y] = place(k), models = fooled[k] + fooled[count + k];
        pen.beginPath();
        pen.strokeStyle = models ? ADVERSARIAL : ink;
        pen.fillStyle = ADVERSARIAL;
        if (models === 2) pen.fillRect(x - 3, y - 3, 6, 6);
        else { pen.arc(x, y, 3, 0, 7); if (models) pen.fill(); else { pen.globalAlpha = 0.6; pen.stroke(); pen.globalAlpha = 1; } }
        if (moved.ids[k] === current) { pen.beginPath(); pen.strokeStyle = MARK; pen.lineWidth = 2; pen.arc(x, y, 7, 0, 7); pen.stroke(); pen.lineWidth = 1; }
      }
      const svg = s("svg", { width, height: tall + 40, "aria-hidden": "true" });
      svg.append(s("rect", { x: left, y: 6, width: side, height: tall, fill: "none", stroke: "currentColor", "stroke-opacity": 0.4 }));
      for (const tick of nice(0, upwards, 3))
        svg.append(text(left - 5, 6 + tall - Math.sqrt(tick / upwards) * (tall - 8), short(tick), { "text-anchor": "end" }));
      for (const tick of nice(0, across, 3)) svg.append(text(left + 4 + Math.sqrt(tick / across) * (side - 8), tall + 20, short(tick)));
      svg.append(text(left + side / 2, tall + 34, `${moved.titles[0]} →, ${moved.titles[1]} ↑: √MSE of the maps`));
      plot.append(canvas, svg);
      const nearest = event => {
        const box = canvas.getBoundingClientRect(), [px, py] = [event.clientX - box.left, event.clientY - box.top];
        let best = -1, least = 15 ** 2;
        for (let k = 0; k < count; k++) {
          if (!has(moved.ids[k])) continue;
          const [x, y] = place(k), far = (x - px) ** 2 + (y - py) ** 2;
          if (far < least) [best, least] = [k, far];
        }
        return best;
      };
      plot.addEventListener("pointermove", event => {
        const k = nearest(event);
        plot.style.cursor = k < 0 ? "" : "pointer";
        tip(event, k < 0 ? "" : `${moved.ids[k]}: ${short(one[k])} and ${short(two[k])}`);
      });
      plot.addEventListener("click", event => { const k = nearest(event); if (k >= 0) open(moved.ids[k]); });
    }, "moved");
}

// ---- what can be taken away ----

function save(name, content, type) {
  const link = h("a", { href: URL.createObjectURL(new Blob([content], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

export function asSvg(pictures) {
  const box = pictures.getBoundingClientRect();
  const whole = s("svg", { xmlns: "http://www.w3.org/2000/svg", width: box.width, height: box.height, color: "#222", "font-family": "sans-serif" },
    s("rect", { width: "100%", height: "100%", fill: "#fff" }));
  const at = one => { const place = one.getBoundingClientRect(); return [place.left - box.left, place.top - box.top, place.width, place.height]; };
  for (const words of pictures.querySelectorAll("h3, .verdict, figcaption, .said")) {
    const [x, y] = at(words);
    whole.append(text(x, y + 13, words.textContent, { "text-anchor": "start", "font-size": words.matches("h3") ? 14 : 11 }));
  }
  for (const canvas of pictures.querySelectorAll("canvas")) {
    const [x, y, width, height] = at(canvas);
    whole.append(s("image", { x, y, width, height, href: canvas.toDataURL(), style: "image-rendering: pixelated", preserveAspectRatio: "none" }));
  }
  for (const svg of pictures.querySelectorAll(".plot > svg")) {
    const [x, y] = at(svg), copy = svg.cloneNode(true);
    copy.setAttribute("x", x);
    copy.setAttribute("y", y);
    whole.append(copy);
  }
  return new XMLSerializer().serializeToString(whole);
}

export function asCsv(scene, of, margins) {
  const rows = [["model", "modality", "head", "quantity", "attending", "attended", "value"]];
  const number = k => cell(of, k).replace(/frames? /, "").replace("–", "-");
  for (const map of of.maps) {
    const who = [map.title, map.modality, map.head ?? "mean"];
    for (const kind of ["clean", "adversarial", "difference"])
      map.values[kind].forEach((value, k) => rows.push([...who, kind, number(Math.floor(k / of.size)), number(k % of.size), value]));
    map.received.forEach((values, k) => values.forEach((value, frame) =>
      rows.push([...who, k ? "received, adversarial" : "received, clean", "", frame + 1, value])));
  }
  for (const model of scene.models) {
    floats(model.norms).forEach((value, frame) => rows.push([model.title, "", "", "norm of the perturbation", "", frame + 1, value]));
    (margins?.of[model.key] ?? []).forEach((value, k) =>
      rows.push([model.title, "", "", `margin at epsilon ${margins.epsilons[k]}`, "", "", value ?? ""]));
  }
  return rows.map(row => row.map(one => /[",\n]/.test(one) ? `"${String(one).replaceAll('"', '""')}"` : one).join(",")).join("\n") + "\n";
}

// ---- the page ----

export function mount(root, host) {
  root.classList.add("explorer");
  const get = name => host.get(name) ?? {}, change = patch => host.set("state", { ...get("state"), ...patch });
  root.reading = () => reading(get("scene"), get("state"), about);  // the numbers on show, for whoever asks the console
  const about = get("about"), live = !host.stored, tooltip = h("div", { class: "tip", hidden: true });
  const pictures = h("div", { class: "pictures" }), said = h("p", { class: "said", "aria-live": "polite" });
  const controls = makeControls(about, live, get, change, {
    svg: () => save("attention.svg", asSvg(pictures), "image/svg+xml"),
    csv: () => save("attention.csv", asCsv(get("scene"), reading(get("scene"), get("state"), about), get("margins")), "text/csv"),
    html: () => host.set("wanted", (host.get("wanted") ?? 0) + 1),
  });
  root.replaceChildren(...(about.note ? [h("p", { class: "box" }, about.note)] : []), controls.node, pictures, said, tooltip);
  // in JupyterLab the arrow down would choose the next cell, and the letter x cut it
  root.addEventListener("keydown", event => event.stopPropagation());

  const tip = (event, words) => {
    tooltip.hidden = !words;
    tooltip.textContent = words;
    const box = root.getBoundingClientRect(), x = event.clientX - box.left, right = x > box.width / 2;
    Object.assign(tooltip.style, { top: `${event.clientY - box.top + 14}px`, left: right ? "auto" : `${x + 10}px`,
      right: right ? `${box.width - x + 6}px` : "auto" });
  };
  pictures.addEventListener("pointerleave", () => { tooltip.hidden = true; });
  // A click marks a frame, a drag a range of them. The picture is drawn anew meanwhile, so the window listens, and places
  // are those of the moment when the drag began.
  const pick = (plot, places) => plot.addEventListener("pointerdown", event => {
    const of = reading(get("scene"), get("state"), about), column = places(), from = column(event);
    const mark = to => change({ frames: [of.first + Math.min(from, to) * of.step + 1,
      Math.min(of.last, of.first + (Math.max(from, to) + 1) * of.step)] });
    const move = moved => { if (Math.abs(moved.clientX - event.clientX) > DRAG) mark(column(moved)); };
    const up = () => removeEventListener("pointermove", move);
    event.preventDefault();
    addEventListener("pointermove", move);
    addEventListener("pointerup", up, { once: true });
    mark(from);
  });

  function model(number, scene, of, ends) {
    const { key, title, verdict, top, attacked_top, norms } = scene.models[number], maps = of.maps.filter(map => map.model === number);
    const small = get("state").head === "all", heads = h("div", { class: "heads" }), children = [heads];
    for (const map of maps) {
      const triple = ["clean", "adversarial", "difference"].map(kind => mapPanel(kind, map, of, pick, tip, small));
      const together = h("div", { class: "triple" }, h("p", { class: "said" }, map.name), ...triple);
      if (small) { heads.append(together); continue; }
      children.push(together);
      const all = Array.from(map.received[0], (_, k) => k + 1), shown = all.slice(of.first, of.last), cut = values => Array.from(values).slice(of.first, of.last);
      const receives = (event, frame) => tip(event, `frame ${frame + 1} receives ${short(map.received[0][frame])} clean, ${short(map.received[1][frame])} attacked`);
      const uniform = 1 / scene.frames, rows = Array.from({ length: of.size }, (_, k) => of.first + k * of.step + (of.counts[k] + 1) / 2);
      const who = ["clean", "adversarial"].map(kind => attending(map.values[kind], of));
      children.push(h("div", { class: "pair" },
        chartPanel("attention that each frame receives", { of, pick, tip: receives, xName: "frame", top: ends.received, lines: [
          { xs: [of.first + 0.5, of.last + 0.5], ys: [uniform, uniform], dash: "1 4" },
          { xs: shown, ys: cut(map.received[0]) }, { xs: shown, ys: cut(map.received[1]), colour: ADVERSARIAL, dash: "6 3" }] }),
        chartPanel(`who attends to ${span(of.marked)}`, { of, xName: "attending frame", top: ends.who,
          tip: (event, frame) => { const k = Math.floor((frame - of.first) / of.step); tip(event, `${cell(of, k)}: ${short(who[0][k])} clean, ${short(who[1][k])} attacked`); },
          lines: [{ xs: rows, ys: who[0] }, { xs: rows, ys: who[1], colour: ADVERSARIAL, dash: "6 3" }] })));
    }
    const moved = floats(norms);
    children.push(chartPanel("norm of each frame's perturbation", { of, pick, xName: "frame", bars: Array.from(moved), top: ends.norm,
      tip: (event, frame) => tip(event, `frame ${frame + 1} is moved by ${short(moved[frame])}`) }));
    const cells = ([name, probability, is]) => [h("td", { title: name }, is ? h("b", {}, name) : name),
      h("td", {}, probability === undefined ? "" : `${(100 * probability).toFixed(1)} %`), h("td", {}, is ? h("b", {}, "✓ true") : "")];
    const table = h("table", {}, h("colgroup", {}, ...[26, 12, 12, 26, 12, 12].map(share => h("col", { style: `width:${share}%` }))), h("tr", {}, ...["clean: top labels", "adversarial: top labels"].map(name => h("th", { colspan: 3, scope: "colgroup" }, name))),
      ...top.map((one, k) => h("tr", {}, ...cells(one), ...cells(attacked_top?.[k] ?? ["…"]))));
    return h("section", { "data-model": key }, h("h3", {}, title), h("p", { class: "verdict" }, verdict), h("div", { class: "scrolls", tabindex: 0, role: "group", "aria-label": `top labels of ${title}` }, table), ...children);
  }

  function together(scene) {
    const margins = get("margins"), state = get("state"), epsilons = margins.epsilons ?? [], children = [];
    const known = scene.models.filter(model => (margins.of?.[model.key] ?? []).some(value => value !== null));
    if (known.length) {
      const all = known.flatMap(model => margins.of[model.key].filter(value => value !== null)), marks = [{ x: state.epsilon }], words = [];
      const lines = known.map(model => {
        const [colour, dash] = STYLES[scene.models.indexOf(model)], ys = margins.of[model.key], xs = epsilons.slice(0, ys.length), at = crossing(xs, ys);
        if (at !== null) marks.push({ x: at, y: 0, colour });
        words.push(`${model.title}: ${ys[0] < 0 ? "wrong at ε = 0" : at !== null ? `fooled from ε ≈ ${short(at)}` : ys.length < epsilons.length ? "…" : "not fooled"}`);
        return { xs, ys, colour, dash };
      });
      const legend = h("span", { class: "legend" }, ...known.map((model, k) => h("span", {}, key(...STYLES[scene.models.indexOf(model)]), words[k])));
      children.push(chartPanel(h("span", {}, "margin of the true labels over ε ", legend), { lines, marks, low: 0, high: epsilons.at(-1) || 1,
        floor: Math.min(0, ...all), top: Math.max(0, ...all) || 1, xName: "ε", summary: `margin of the true labels over epsilon. ${words.join("; ")}` }));
    }
    if (get("moved").ids) children.push(movedPanel(get("moved"), video => change({ video, frames: null, zoom: null, masked: [] }), tip, state.video,
      video => live || get("listing").videos.some(([one]) => one === video)));
    return h("div", { class: "together" }, ...children);
  }

  const key = (colour, dash) => s("svg", { width: 26, height: 8, "aria-hidden": "true" }, line(0, 4, 26, 4, { stroke: colour, "stroke-dasharray": dash, "stroke-width": 2 }));
  const bar = (colours, low, high) => h("span", {}, low, h("i", { style: `background:linear-gradient(to right,${colours})` }), high);

  const awaited = () => live && JSON.stringify(about.asked.map(name => get("state")[name])) !== JSON.stringify(get("scene").asked);
  function draw() {
    const scene = get("scene"), state = get("state");
    root.toggleAttribute("data-busy", awaited());
    controls.show(scene);
    if (scene.error) {
      pictures.replaceChildren(h("p", { class: "box", role: "alert" }, scene.error));
      said.textContent = "";
      return;
    }
    if (!scene.maps) { said.textContent = "computing …"; return; }
    const of = reading(scene, state, about), shown = scene.models.map((one, k) => k).filter(k => state.models.includes(scene.models[k].key));
    const largest = lists => 1.1 * Math.max(...lists.flatMap(values => Array.from(values))) || 1;
    const ends = { received: largest(of.maps.flatMap(map => map.received)), norm: largest(scene.models.map(model => floats(model.norms))),
      who: largest(of.maps.flatMap(map => ["clean", "adversarial"].map(kind => attending(map.values[kind], of)))) };
    const over = Math.max(...of.maps.map(map => Math.max(...map.values.adversarial)));
    const head = h("header", {}, h("p", { class: "video" }, "Test video ", h("b", {}, scene.video), ` (${about.data})`,
      ...(scene.address ? [" · ", h("a", { href: scene.address[0], target: "_blank", rel: "noopener noreferrer" }, scene.address[0]), `, ${scene.address[1]}`] : []),
      h("br"), "true labels: ", h("b", {}, scene.labels.join(", ") || "none")),
    h("p", { class: "legend" }, h("span", {}, key("currentColor", ""), "clean"), h("span", {}, key(ADVERSARIAL, "6 3"), "adversarial"),
      h("span", {}, key("currentColor", "1 4"), "uniform, 1/T"), bar(VIRIDIS.map(hex => `#${hex}`), "weight 0", short(of.most) + (over > 1.005 * of.most ? ` (attacked up to ${short(over)})` : "")),
      bar([`rgb(${LESS})`, "transparent", `rgb(${MORE})`], `difference ${short(-of.reach)}`, short(of.reach))));
    const sections = h("div", { class: "models" }, ...shown.map(number => model(number, scene, of, ends)));
    pictures.replaceChildren(head, sections, together(scene));
    const panels = [...pictures.querySelectorAll(".panel")].map(one => [one, one.querySelector(".plot")]).map(([one, plot]) => [one, plot, plot.clientWidth]);
    for (const [one, plot, width] of panels) one.draw(plot, width);
    const map = pictures.querySelector("canvas"), need = 64 * Math.ceil((map?.clientWidth ?? 0) * Math.min(2, devicePixelRatio || 1) / 64);
    if (need && need !== host.get("pixels")) host.set("pixels", need);  // known to the kernel only: not part of a view
    said.textContent = "Rows of a map attend, columns are attended to. Click or drag over frames to mark them."
      + (about.seconds ? " A frame is a second." : "") + (of.step > 1 ? ` A pixel of a map is the mean over ${of.step} frames.` : "")
      + (scene.milliseconds ? ` Computed in ${Math.round(scene.milliseconds)} ms.` : "");
  }

  let planned = 0;
  const plan = () => {
    if (awaited()) root.toggleAttribute("data-busy", true);
    planned ||= requestAnimationFrame(() => { planned = 0; draw(); });
  };
  for (const name of ["state", "scene", "listing", "moved", "margins"]) host.on(name, plan);
  host.on("page", () => { const { name, content } = get("page"); if (name) save(name, bytes(content), "text/html"); });
  const resized = new ResizeObserver(plan);
  resized.observe(root);
  plan();
  return () => resized.disconnect();
}

// ---- controls: a form, whose fields are the state's ----

function makeControls(about, live, get, change, take) {
  const id = Math.random().toString(36).slice(2), shows = [];
  const field = (name, control, show, ...more) => {
    if (show) shows.push(() => show(control));
    control.id = `${name.replaceAll(/\W+/g, "-")}-${id}`;
    return h("div", { class: "field" }, h("label", { for: control.id }, name), control, ...more);
  };
  const options = pairs => pairs.map(([value, name]) => h("option", { value }, name));
  const choose = (name, pairs, read, write) => field(name, h("select", { onchange: event => change(write(event.target.value)) }, ...options(pairs)),
    control => { control.value = read(get("state")); });
  const button = (name, act) => h("button", { type: "button", onclick: act }, name);
  const find = patch => { const { find: old, models, attack, epsilon } = get("state"); change({ find: { ...old, ...patch, models, attack, epsilon } }); };

  const search = h("input", { type: "search", list: `classes-${id}`, placeholder: "part of an id, or a label", onchange: event => find({ text: event.target.value }) });
  const videos = h("select", { size: 5, onchange: event => change({ video: event.target.value, frames: null, zoom: null, masked: [] }) });
  const found = h("p", { class: "said", "aria-live": "polite" });
  let listed = null;
  shows.push(() => {
    const { videos: list = [], text: words = "searching …" } = get("listing"), { video, find: asked } = get("state");
    if (listed !== list) { videos.replaceChildren(...list.map(([value, labels]) => h("option", { value }, `${value}  ${labels.length < 60 ? labels : labels.slice(0, 59) + "…"}`))); listed = list; }
    videos.value = video;
    found.textContent = words;
    if (document.activeElement !== search) search.value = asked.text;
    again.hidden = asked.order !== "fooled";
  });
  const again = button("Search again at this ε", () => find({}));
  const models = Array.from({ length: Math.min(about.shown, Math.max(2, about.models.length)) }, (_, place) =>
    choose(`Model ${place + 1}`, place ? [["", "none"], ...about.models] : about.models, state => state.models[place] ?? "",
      value => { const chosen = [...get("state").models]; chosen[place] = value; return { models: chosen.filter(Boolean) }; }));
  const heads = about.means ? [["mean", `average of ${about.heads} heads`]] : [["mean", `average of ${about.heads} heads`], ["all", `all ${about.heads} heads`], ...Array.from({ length: about.heads }, (_, k) => [k + 1, `head ${k + 1}`])];
  const modalities = [...about.modalities.map(name => [name, name]), ...(about.modalities.length > 1 ? [["", about.modalities.join(" and ")]] : [])];

  const given = about.epsilons, slide = h("input", { type: "range", min: 0, max: given ? given.length - 1 : about.most, step: given ? 1 : about.notch,
    oninput: event => change({ epsilon: given ? given[+event.target.value] : +(+event.target.value).toPrecision(9) }) });
  const epsilon = h("output", {}), strength = h("p", { class: "said" });
  const takes = name => about.attacks.find(([one]) => one === name)?.[2];
  shows.push(scene => {
    const state = get("state");
    slide.value = given ? given.indexOf(state.epsilon) : state.epsilon;
    slide.disabled = !takes(state.attack);
    epsilon.textContent = String(+state.epsilon.toPrecision(4));
    strength.textContent = scene?.strength ?? "";
  });
  const marked = () => { const scene = get("scene"); return scene.maps ? reading(scene, get("state"), about).marked : [1, 1]; };
  const frame = (name, place) => field(name, h("input", { type: "number", min: 1, onchange: event => {
    const frames = marked(); frames[place] = Math.max(1, Math.round(+event.target.value) || 1);
    change({ frames: place ? [Math.min(...frames), frames[1]] : [frames[0], Math.max(...frames)] });
  } }), control => { control.value = marked()[place]; control.max = get("scene").frames ?? 1; });
  const range = ([a, b]) => Array.from({ length: b - a + 1 }, (_, k) => a + k);
  const view = h("input", { type: "text", spellcheck: "false", onchange: event => {
    try { change(JSON.parse(event.target.value)); event.target.setCustomValidity(""); }
    catch { event.target.setCustomValidity("no view: paste one whole, from { to }"); event.target.reportValidity(); }
  } });
  shows.push(() => { if (document.activeElement !== view) view.value = JSON.stringify(get("state")); });
  const hidden = h("span", { class: "said" });
  shows.push(() => { const { masked } = get("state"); hidden.textContent = masked.length ? `masked: ${masked.join(", ")}` : ""; });

  const node = h("form", { class: "controls", onsubmit: event => event.preventDefault() },
    h("div", {}, ...(live ? [field("Search", search), h("datalist", { id: `classes-${id}` }, ...about.classes.map(value => h("option", { value }))),
      choose("Videos", about.orders, state => state.find.order, order => { const { models, attack, epsilon } = get("state"); return { find: { ...get("state").find, order, models, attack, epsilon } }; })] : []),
    field("Test video", videos), found, again),
    h("div", {}, ...models, choose("Modality", modalities, state => state.modalities.length > 1 ? "" : state.modalities[0], value => ({ modalities: value ? [value] : about.modalities })),
      choose("Head", heads, state => state.head, value => ({ head: +value || value })),
      choose("Differences", [["largest", "colours to the largest one"], ["maps", "colours on the maps' scale"]], state => state.scale, scale => ({ scale }))),
    h("div", {}, choose("Attack", about.attacks, state => state.attack, attack => ({ attack })),
      field("Epsilon ε", slide, null, epsilon), strength,
      h("div", { class: "row" }, frame("Frames from", 0), frame("to", 1)),
      ...(live ? [h("div", { class: "row" }, button("Zoom to these frames", () => change({ zoom: marked() })), button("Whole video", () => change({ zoom: null })),
        button("Mask these frames", () => change({ masked: [...new Set([...get("state").masked, ...range(marked())])].sort((a, b) => a - b) })),
        button("Unmask all", () => change({ masked: [] })), hidden)] : []),
    ),
    h("div", { class: "row wide" }, field("This view", view), button("Save as SVG", take.svg), button("Save as CSV", take.csv), live ? button("Save as one HTML page", take.html) : null));
  return { node, show: scene => shows.forEach(show => show(scene)) };
}

// ---- hosts ----

// In a notebook: all is in the widget's traits.
export default { render({ model, el }) {
  const host = {
    get: name => model.get(name),
    set: (name, value) => { model.set(name, value); model.save_changes(); },
    on: (name, act) => model.on(`change:${name}`, act),
  };
  // anywidget hears nothing more from the kernel if this module took over 2 s to load. So listen as any other widget does,
  // and ask to be told again what was missed.
  model.on("change:arrived", widget => {
    const plain = Object.getPrototypeOf(Object.getPrototypeOf(widget));
    widget.comm?.on_msg(message => plain._handle_comm_msg.call(widget, message));
  });
  const leave = mount(el, host);
  host.set("arrived", Date.now());
  return leave;
} };

// On a page of its own: all was computed before; the state is kept in the address.
export function stored(data) {
  const place = one => one && typeof one === "object"
    ? "buffer" in one ? Uint8Array.from(atob(data.buffers[one.buffer]), c => c.charCodeAt(0)).buffer
      : Array.isArray(one) ? one.map(place) : Object.fromEntries(Object.entries(one).map(([name, value]) => [name, place(value)])) : one;
  const at = name => data.about.asked.indexOf(name), [video, head, attack, epsilon] = ["video", "head", "attack", "epsilon"].map(at);
  const epsilons = [...new Set(data.scenes.map(scene => scene.asked[epsilon]))].sort((a, b) => a - b);
  const attacks = new Set(data.scenes.map(scene => scene.asked[attack])), models = new Set(data.scenes[0].models.map(model => model.key));
  const means = data.scenes.every(scene => scene.asked[head] === "mean");
  const about = { ...data.about, epsilons, means, attacks: data.about.attacks.filter(([name]) => attacks.has(name)), models: data.about.models.filter(([key]) => models.has(key)) };
  const heard = {}, values = { about, listing: data.listing, moved: place(data.moved), state: data.state };
  const answer = () => {
    const { state } = values, near = epsilons.reduce((best, one) => Math.abs(one - state.epsilon) < Math.abs(best - state.epsilon) ? one : best);
    values.state = { ...state, epsilon: near };
    const scene = data.scenes.find(({ asked }) => asked[video] === state.video && asked[attack] === state.attack && asked[epsilon] === near
      && (asked[head] === "mean") === (state.head === "mean"));
    values.scene = scene ? place(scene) : { error: "this page does not have that view; the notebook explore_attention.ipynb computes it" };
    values.margins = data.margins[JSON.stringify([state.video, state.attack, state.masked])] ?? {};
  };
  const host = {
    stored: true, get: name => values[name], on: (name, act) => { (heard[name] ??= []).push(act); },
    set: (name, value) => {
      values[name] = value;
      if (name !== "state") return;
      answer();
      location.replace(`#${encodeURIComponent(JSON.stringify(values.state))}`);
      for (const act of heard.state ?? []) act();
    },
  };
  try { values.state = { ...values.state, ...JSON.parse(decodeURIComponent(location.hash.slice(1))) }; } catch { /* no view in the address */ }
  answer();
  return host;
}

const kept = globalThis.document?.getElementById("explorer-data");
if (kept) mount(document.getElementById("explorer"), stored(JSON.parse(kept.textContent)));
