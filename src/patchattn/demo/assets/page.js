// The custom components of the page: image chooser, mask painter, before-and-after comparison, and field view.
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

  // ---- image chooser ----

  const chosen = {};

  async function post(query, content) {
    let response;
    try {
      response = await fetch(`patchattn/upload?${new URLSearchParams(query)}`, { method: "POST", body: content });
    } catch {
      throw new Error("The file did not arrive; please try again.");
    }
    if (!response.ok) throw new Error(await response.text());
    return response;
  }

  // Upload a file; the limits are checked before it is sent.
  async function upload(content, name) {
    const query = { name, size: content.size };
    await post({ ...query, check: 1 });
    return (await post(query, content)).json();
  }

  function chooser(element, id, props, watch, trigger) {
    const build = () => {
      const { label, name } = props.value || {};
      const input = make("input", { type: "file", accept: "image/*", "aria-label": label });
      const hint = make("span", { class: "pa-hint" }, name ? "Choose another" : "Drop a picture here, or choose a file");
      const field = make("label", { class: "pa-drop" }, make("span", { class: "pa-label" }, label), hint, input);
      const showError = (message) => {
        element.querySelector(".pa-refused")?.remove();
        if (message) element.append(make("p", { class: "pa-status pa-failed pa-refused", role: "alert" }, message));
      };
      const send = async (file) => {
        if (!file) return;
        showError("");
        hint.textContent = `Uploading ${file.name} …`;
        try {
          chosen[id] = (await upload(file, file.name)).id;
          trigger("upload");
        } catch (error) {
          showError(error.message);
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

  // ---- before-and-after comparison ----

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

  // ---- mask painter ----

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

  // Upload the painted mask, white on black, as a PNG; return its id, or an empty string if nothing is painted.
  async function uploadMask() {
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
      return `error: ${error.message}`;
    }
  }

  function painter(element, props, watch) {
    const build = () => {
      strokes = [];
      canvas = null;
      const { image: url, name } = props.value || {};
      if (!url) return element.replaceChildren();
      const size = make("input", { type: "range", min: 1, max: 100, value: 30, "aria-label": "Width of the brush" });
      const eraser = make("input", { type: "checkbox" });
      const image = make("img", { src: url, alt: name, draggable: "false" });
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

  // ---- field view ----

  let pixel = "";

  function figure(title, url, [height, width]) {
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title });
    svg.append(draw("image", { href: url, width, height }));
    return { svg, element: make("figure", {}, svg, make("figcaption", {}, title)) };
  }

  // Draw the outline of a patch, twice, so that it is seen on dark and on bright.
  function square(svg, row, column, side, kind) {
    const place = { x: column + 0.5 - side / 2, y: row + 0.5 - side / 2, width: side, height: side };
    svg.append(draw("rect", { ...place, class: "pa-edge" }), draw("rect", { ...place, class: kind }));
  }

  // A magnified part of an image.
  function magnified(url, [height, width], row, column, side, label) {
    const box = `${column + 0.5 - side / 2} ${row + 0.5 - side / 2} ${side} ${side}`;
    const svg = draw("svg", { viewBox: box, role: "img", "aria-label": label, class: "pa-magnified" });
    svg.append(draw("image", { href: url, width, height }));
    return svg;
  }

  function dots(svg, votes) {
    const most = Math.max(...votes.map((vote) => vote[2]), 1e-9);
    for (const [row, column, weight] of votes)
      svg.append(draw("circle", {
        cx: column + 0.5, cy: row + 0.5, r: 0.15 + 0.35 * Math.sqrt(weight / most), class: "pa-vote" }));
  }

  function matchTable(field) {
    const rows = field.matches.map(([row, column, weight], rank) =>
      make("tr", {},
        make("td", {}, magnified(field.key, field.key_size, row, column, field.patch_size, `Match ${rank + 1}`)),
        make("td", {}, `${row}, ${column}`),
        make("td", {}, make("meter", { value: weight, max: 1 }), ` ${(100 * weight).toFixed(1)} %`)));
    const head = make("tr", {}, ...["Match", "Row, column", "Weight"].map((word) => make("th", {}, word)));
    return make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows));
  }

  function pixelDetails(field) {
    const digits = field.mass > 0.999 ? 2 : 1;
    const [height, width] = field.key_size;
    const kept = field.mass === null ? "" :
      ` Its matches hold ${(100 * field.mass).toFixed(digits)} % of the softmax over all ${height * width} pixels.`;
    const patches = make("div", { class: "pa-magnified-row" },
      make("figure", {}, magnified(field.query, field.query_size, field.row, field.column, field.patch_size, "The patch"),
        make("figcaption", {}, "The patch")));
    if (field.matches.length) {
      const [row, column] = field.matches[0];
      const votes = magnified(field.key, field.key_size, row, column, 4 * field.patch_size + 3, "The votes, magnified");
      square(votes, row, column, field.patch_size, "pa-match");
      dots(votes, field.votes);
      patches.append(make("figure", {}, votes, make("figcaption", {}, "The best match and the votes around it")));
    }
    return make("div", { class: "pa-details" },
      make("p", {}, `Row ${field.row}, column ${field.column}.${kept}`), patches, matchTable(field));
  }

  function fieldView(element, props, watch, trigger) {
    const build = () => {
      const field = props.value || {};
      if (!field.query) return element.replaceChildren();
      const focused = element.contains(document.activeElement);
      const query = figure("Query", field.query, field.query_size);
      const key = figure("Key: matches as squares, votes of the neighbors as dots", field.key, field.key_size);
      const flow = figure("The field: hue is the direction to the best match, strength the distance", field.flow, field.query_size);
      const [height, width] = field.query_size;
      const choose = (row, column) => {
        pixel = [Math.min(Math.max(row, 0), height - 1), Math.min(Math.max(column, 0), width - 1)].join();
        trigger("click");
      };
      for (const { svg } of [query, flow]) {
        svg.classList.add("pa-clickable");
        svg.addEventListener("click", (event) => {
          const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
          choose(Math.floor(place.y), Math.floor(place.x));
        });
      }
      query.svg.setAttribute("tabindex", "0");
      query.svg.addEventListener("keydown", (event) => {
        const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
        if (!step || field.row === undefined) return;
        event.preventDefault();
        choose(field.row + step[0], field.column + step[1]);
      });
      const parts = [query.element, key.element, flow.element];
      if (field.matches) {
        for (const { svg } of [query, flow]) square(svg, field.row, field.column, field.patch_size, "pa-pixel");
        for (const [row, column] of field.matches) square(key.svg, row, column, field.patch_size, "pa-match");
        dots(key.svg, field.votes);
        parts.push(pixelDetails(field));
      }
      element.replaceChildren(make("div", { class: "pa-field-view" }, ...parts));
      if (focused) query.svg.focus({ preventScroll: true });
    };
    watch("value", build);
    build();
  }

  return {
    chooser, uploaded: (id) => chosen[id], comparison, painter, uploadMask, fieldView, clickedPixel: () => pixel,
  };
})();
