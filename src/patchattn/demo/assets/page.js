// The parts of the page that are made by hand: the choice of a file, the brush, before and after, and the marks of what a
// pixel attends to.
window.patchattn = (() => {
  const SVG = "http://www.w3.org/2000/svg";

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  function draw(tag, attributes) {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  }

  // ---- files ----

  const chosen = {};

  async function ask(query, content) {
    let answer;
    try {
      answer = await fetch(`patchattn/upload?${new URLSearchParams(query)}`, { method: "POST", body: content });
    } catch {
      throw new Error("The file did not arrive; please try again.");
    }
    if (!answer.ok) throw new Error(await answer.text());
    return answer;
  }

  // Send a file; what is refused is known before it is sent.
  async function upload(content, name) {
    const query = { name, size: content.size };
    await ask({ ...query, check: 1 });
    return (await ask(query, content)).json();
  }

  function chooser(element, id, props, watch, trigger) {
    const build = () => {
      const { label, name } = props.value || {};
      const input = make("input", { type: "file", accept: "image/*", "aria-label": label });
      const hint = make("span", { class: "pa-hint" }, name ? "Choose another" : "Drop a picture here, or choose a file");
      const field = make("label", { class: "pa-drop" }, make("span", { class: "pa-label" }, label), hint, input);
      const say = (words) => {
        element.querySelector(".pa-refused")?.remove();
        if (words) element.append(make("p", { class: "pa-status pa-failed pa-refused", role: "alert" }, words));
      };
      const send = async (file) => {
        if (!file) return;
        say("");
        hint.textContent = `Uploading ${file.name} …`;
        try {
          chosen[id] = (await upload(file, file.name)).id;
          trigger("upload");
        } catch (error) {
          say(error.message);
        }
        hint.textContent = "Drop a picture here, or choose a file";
        input.value = "";
      };
      input.addEventListener("change", () => send(input.files[0]));
      for (const over of ["dragover", "dragenter"])
        field.addEventListener(over, (event) => { event.preventDefault(); field.classList.add("pa-over"); });
      field.addEventListener("dragleave", () => field.classList.remove("pa-over"));
      field.addEventListener("drop", (event) => {
        event.preventDefault();
        field.classList.remove("pa-over");
        send(event.dataTransfer.files[0]);
      });
      element.replaceChildren(field);
      if (name) element.append(make("button", { type: "button", class: "pa-remove", onclick: () => trigger("clear") }, "Remove"));
    };
    watch("value", build);
    build();
  }

  // ---- before and after ----

  function comparison(element, props, watch) {
    const build = () => {
      const { before, after, path, name } = props.value || {};
      if (!path) return element.replaceChildren();
      const first = make("img", { src: before, alt: "Before", draggable: "false", class: "pa-before" });
      const line = make("div", { class: "pa-line" });
      const range = make("input", { type: "range", min: 0, max: 100, step: 0.5, value: 50, "aria-label": "Before and after" });
      const place = () => {
        first.style.clipPath = `inset(0 ${100 - range.value}% 0 0)`;
        line.style.left = `${range.value}%`;
      };
      range.addEventListener("input", place);
      place();
      const last = make("img", { src: after, alt: "After", draggable: "false" });
      const stage = make("div", { class: "pa-compared" }, last, first, line, range);
      const whole = () => stage.requestFullscreen?.();
      element.replaceChildren(
        make("div", { class: "pa-caption" }, make("span", {}, "Before and after"),
          make("button", { type: "button", onclick: whole }, "Full screen")),
        stage,
        make("a", { class: "pa-download", href: path, download: name }, `Download ${name}`));
    };
    watch("value", build);
    build();
  }

  // ---- the brush ----

  let strokes = [];
  let canvas = null;

  function repaint() {
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    for (const { points, width, erases } of strokes) {
      context.globalCompositeOperation = erases ? "destination-out" : "source-over";
      context.lineCap = context.lineJoin = "round";
      context.strokeStyle = "#f0386b";
      context.lineWidth = width;
      context.beginPath();
      context.moveTo(...points[0]);
      for (const point of points.length > 1 ? points.slice(1) : points) context.lineTo(...point);
      context.stroke();
    }
  }

  // What is painted, white on black, uploaded as a PNG: its id; nothing where nothing is.
  async function painted() {
    if (!canvas || !strokes.length) return "";
    const mask = make("canvas", { width: canvas.width, height: canvas.height });
    const context = mask.getContext("2d");
    context.drawImage(canvas, 0, 0);
    context.globalCompositeOperation = "source-in";
    context.fillStyle = "white";
    context.fillRect(0, 0, mask.width, mask.height);
    context.globalCompositeOperation = "destination-over";
    context.fillStyle = "black";
    context.fillRect(0, 0, mask.width, mask.height);
    const content = await new Promise((done) => mask.toBlob(done, "image/png"));
    try {
      return (await upload(content, "painted.png")).id;
    } catch (error) {
      return `refused: ${error.message}`;
    }
  }

  function painter(element, props, watch) {
    const build = () => {
      strokes = [];
      canvas = null;
      const { picture, name } = props.value || {};
      if (!picture) return element.replaceChildren();
      const size = make("input", { type: "range", min: 1, max: 100, value: 30, "aria-label": "Width of the brush" });
      const eraser = make("input", { type: "checkbox" });
      const image = make("img", { src: picture, alt: name, draggable: "false" });
      canvas = make("canvas", { "aria-label": "Paint over what should go", class: "pa-canvas" });
      image.addEventListener("load", () => {
        canvas.width = image.naturalWidth;
        canvas.height = image.naturalHeight;
        canvas.dataset.ready = "true";
        stage.style.maxWidth = `calc(72vh * ${image.naturalWidth / image.naturalHeight})`;
      });
      const at = (event) => {
        const box = canvas.getBoundingClientRect();
        const scale = canvas.width / box.width;
        return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
      };
      let stroke = null;
      canvas.addEventListener("pointerdown", (event) => {
        if (event.button !== 0) return;
        canvas.setPointerCapture(event.pointerId);
        const width = (size.value / 400) * Math.max(canvas.width, canvas.height);
        stroke = { points: [at(event)], width, erases: eraser.checked };
        strokes.push(stroke);
        repaint();
      });
      canvas.addEventListener("pointermove", (event) => {
        if (!stroke) return;
        stroke.points.push(...(event.getCoalescedEvents?.() ?? [event]).map(at));
        repaint();
      });
      for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (stroke = null));
      const undo = () => { strokes.pop(); repaint(); };
      const clear = () => { strokes = []; repaint(); };
      const stage = make("div", { class: "pa-stage" }, image, canvas);
      element.replaceChildren(
        make("div", { class: "pa-brushes" },
          make("label", {}, "Brush", size),
          make("label", {}, eraser, "Erase"),
          make("button", { type: "button", onclick: undo }, "Undo"),
          make("button", { type: "button", onclick: clear }, "Clear")),
        stage);
    };
    watch("value", build);
    build();
  }

  // ---- what a pixel attends to ----

  let pixel = "";

  function figure(title, url, [height, width]) {
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title });
    svg.append(draw("image", { href: url, width, height }));
    return { svg, element: make("figure", {}, svg, make("figcaption", {}, title)) };
  }

  // A square around a patch, twice, so that it is seen on dark and on bright.
  function square(svg, row, column, side, kind) {
    const place = { x: column + 0.5 - side / 2, y: row + 0.5 - side / 2, width: side, height: side };
    svg.append(draw("rect", { ...place, class: "pa-edge" }), draw("rect", { ...place, class: kind }));
  }

  // A part of a picture, from near.
  function near(url, [height, width], row, column, side, label) {
    const box = `${column + 0.5 - side / 2} ${row + 0.5 - side / 2} ${side} ${side}`;
    const svg = draw("svg", { viewBox: box, role: "img", "aria-label": label, class: "pa-near" });
    svg.append(draw("image", { href: url, width, height }));
    return svg;
  }

  function dots(svg, votes) {
    const most = Math.max(...votes.map((vote) => vote[2]), 1e-9);
    for (const [row, column, weight] of votes)
      svg.append(draw("circle", {
        cx: column + 0.5, cy: row + 0.5, r: 0.15 + 0.35 * Math.sqrt(weight / most), class: "pa-vote" }));
  }

  function table(found) {
    const rows = found.matches.map(([row, column, weight], rank) =>
      make("tr", {},
        make("td", {}, near(found.key, found.key_size, row, column, found.patch_size, `Match ${rank + 1}`)),
        make("td", {}, `${row}, ${column}`),
        make("td", {}, make("meter", { value: weight, max: 1 }), ` ${(100 * weight).toFixed(1)} %`)));
    const head = make("tr", {}, ...["Match", "Row, column", "Weight"].map((word) => make("th", {}, word)));
    return make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows));
  }

  function told(found) {
    const share = found.mass > 0.999 ? 2 : 1;
    const [height, width] = found.key_size;
    const kept = found.mass === null ? "" :
      ` Its matches hold ${(100 * found.mass).toFixed(share)} % of the softmax over all ${height * width} pixels.`;
    const nears = make("div", { class: "pa-nears" },
      make("figure", {}, near(found.query, found.query_size, found.row, found.column, found.patch_size, "The patch"),
        make("figcaption", {}, "The patch")));
    if (found.matches.length) {
      const [row, column] = found.matches[0];
      const votes = near(found.key, found.key_size, row, column, 4 * found.patch_size + 3, "Votes from near");
      square(votes, row, column, found.patch_size, "pa-match");
      dots(votes, found.votes);
      nears.append(make("figure", {}, votes, make("figcaption", {}, "The best match and the votes about it")));
    }
    return make("div", { class: "pa-told" },
      make("p", {}, `Row ${found.row}, column ${found.column}.${kept}`), nears, table(found));
  }

  function viewer(element, props, watch, trigger) {
    const build = () => {
      const found = props.value || {};
      if (!found.query) return element.replaceChildren();
      const focused = element.contains(document.activeElement);
      const query = figure("Where it looks from", found.query, found.query_size);
      const key = figure("What it finds: matches in squares, votes of its neighbors as dots", found.key, found.key_size);
      const flow = figure("The field: hue is the direction to the best match, strength the distance", found.flow, found.query_size);
      const [height, width] = found.query_size;
      const ask = (row, column) => {
        pixel = [Math.min(Math.max(row, 0), height - 1), Math.min(Math.max(column, 0), width - 1)].join();
        trigger("click");
      };
      for (const { svg } of [query, flow]) {
        svg.classList.add("pa-clickable");
        svg.addEventListener("click", (event) => {
          const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
          ask(Math.floor(place.y), Math.floor(place.x));
        });
      }
      query.svg.setAttribute("tabindex", "0");
      query.svg.addEventListener("keydown", (event) => {
        const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
        if (!step || found.row === undefined) return;
        event.preventDefault();
        ask(found.row + step[0], found.column + step[1]);
      });
      const parts = [query.element, key.element, flow.element];
      if (found.matches) {
        for (const { svg } of [query, flow]) square(svg, found.row, found.column, found.patch_size, "pa-here");
        for (const [row, column] of found.matches) square(key.svg, row, column, found.patch_size, "pa-match");
        dots(key.svg, found.votes);
        parts.push(told(found));
      }
      element.replaceChildren(make("div", { class: "pa-viewer" }, ...parts));
      if (focused) query.svg.focus({ preventScroll: true });
    };
    watch("value", build);
    build();
  }

  return { chooser, uploaded: (id) => chosen[id], comparison, painter, painted, viewer, clicked: () => pixel };
})();
