// A point cloud that can be turned, drawn without WebGL, so that it is there on every machine.

function pointCloud(section) {
  const canvas = element("canvas", {
    class: "cloud", tabindex: 0, role: "img", width: 640, height: 420,
    "aria-label": "Point cloud; drag, or use the arrow keys, to turn it, and + and - to come closer",
  });
  const view = { yaw: 0.35, pitch: 0.2, zoom: 1.7 };
  let points = null; // in median depths, the middle of the scene at 0

  async function show(i) {
    const { inverse_depth: map, camera: [fx, fy, cx, cy, alpha], layers } = section.examples[i];
    const { width, height, values } = numbersOf(map);
    const image = new Image();
    image.src = layers[0].uri;
    await image.decode();
    const scratch = element("canvas", { width, height }).getContext("2d");
    scratch.drawImage(image, 0, 0, width, height);
    const colors = scratch.getImageData(0, 0, width, height).data;
    const depths = [...values].filter((value) => value > 0).map((value) => 1 / value).sort((a, b) => a - b);
    const middle = depths[Math.floor(depths.length / 2)] || 1;
    const xyz = [];
    const rgb = [];
    values.forEach((value, at) => {
      const z = 1 / value;
      if (!(z < 5 * middle)) return; // unknown, or as far as `sslax.predict` leaves out
      const [column, row] = [at % width, Math.floor(at / width)];
      const [x, y] = [(column - cx) / fx, (row - cy) / fy];
      const square = x * x + y * y;
      if (alpha * alpha * square >= 1) return; // sees what is not in front of the camera
      // The ray of a wide lens, `sslax.ops.UnifiedCamera`; of a pinhole camera alpha is 0.
      const root = Math.sqrt(1 + (1 - 2 * alpha) * square);
      const ray = (1 - alpha + alpha * root) / (1 - alpha * alpha * square);
      xyz.push(ray * x * z / middle, ray * y * z / middle, z / middle - 1);
      rgb.push(colors[4 * at], colors[4 * at + 1], colors[4 * at + 2]);
    });
    points = { count: rgb.length / 3, focal: fx, xyz: Float32Array.from(xyz), rgb: Uint8Array.from(rgb) };
    draw();
  }

  function draw() {
    if (!points) return;
    const { width, height } = canvas;
    const context = canvas.getContext("2d");
    const picture = context.createImageData(width, height);
    const pixels = new Uint32Array(picture.data.buffer);
    const nearest = new Float32Array(width * height).fill(Infinity);
    pixels.fill(0xff141210);
    const [sy, cy, sp, cp] = [Math.sin(view.yaw), Math.cos(view.yaw), Math.sin(view.pitch), Math.cos(view.pitch)];
    const focal = 0.95 * width * view.zoom;
    for (let i = 0; i < points.count; i++) {
      const [x, y, z] = [points.xyz[3 * i], points.xyz[3 * i + 1], points.xyz[3 * i + 2]];
      const turned = cy * x + sy * z;
      const forward = -sy * x + cy * z;
      const lifted = cp * y - sp * forward;
      const depth = sp * y + cp * forward + 1.6;
      if (depth < 0.15) continue;
      const u = Math.round(width / 2 + focal * turned / depth);
      const v = Math.round(height / 2 + focal * lifted / depth);
      // As large as the gap to the next pixel there, so that surfaces are closed.
      const size = Math.min(16, Math.max(2, Math.ceil(focal * (z + 1) / points.focal / depth)));
      const shade = 0xff000000 | (points.rgb[3 * i + 2] << 16) | (points.rgb[3 * i + 1] << 8) | points.rgb[3 * i];
      for (let b = v; b < v + size; b++) {
        for (let a = u; a < u + size; a++) {
          if (a < 0 || b < 0 || a >= width || b >= height) continue;
          const at = b * width + a;
          if (depth < nearest[at]) { nearest[at] = depth; pixels[at] = shade; }
        }
      }
    }
    context.putImageData(picture, 0, 0);
  }

  function turn(yaw, pitch, zoom = 1) {
    view.yaw += yaw;
    view.pitch = Math.min(1.4, Math.max(-1.4, view.pitch + pitch));
    view.zoom = Math.min(8, Math.max(0.3, view.zoom * zoom));
    draw();
  }

  canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
  canvas.addEventListener("pointermove", (event) => {
    if (event.buttons) turn(-event.movementX / 200, event.movementY / 200);
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    turn(0, 0, Math.exp(-event.deltaY / 500));
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const change = {
      ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1], "+": [0, 0, 1.15], "-": [0, 0, 1 / 1.15],
    }[event.key];
    if (!change) return;
    event.preventDefault();
    turn(...change);
  });

  show(0);
  const note = "Drag to turn it, scroll to come closer; or use the arrow keys, + and -."
    + (section.camera_known ? "" : " The camera is not known: a field of view of 60 degrees is assumed.");
  return { show, nodes: [element("h3", {}, "Point cloud"), canvas, element("p", { class: "faint" }, note)] };
}
