/* The viewer: one NiiVue, unpacked when a case is first opened. */
const viewer = document.getElementById("viewer");
if (viewer) {
  const part = (id) => document.getElementById(id);
  const words = part("viewer-words");
  const colour = (name) => {
    const hex = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
    return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  };
  const [OUTLINE_OPACITY, FAINT_OPACITY, FILLED_OPACITY] = [0.9, 0.12, 0.45];
  let scene = null, starting = null;

  const unpack = async () => {
    const bytes = Uint8Array.from(atob(part("viewer-program").textContent), (letter) => letter.charCodeAt(0));
    const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(plain).text();
    document.head.append(script);
  };

  const start = async () => {
    if (!document.createElement("canvas").getContext("webgl2")) throw new Error("This browser has no WebGL 2.");
    await unpack();
    const made = new niivue.Niivue({
      backColor: [0, 0, 0, 1], crosshairColor: [1, 1, 1, 0.6], crosshairWidth: 0.15, fontColor: [1, 1, 1, 0.9],
      isRadiologicalConvention: true, sagittalNoseLeft: true, multiplanarEqualSize: true,
      multiplanarShowRender: niivue.SHOW_RENDER.NEVER, multiplanarLayout: niivue.MULTIPLANAR_TYPE.ROW,
      logLevel: "error", loadingText: "", dragAndDropEnabled: false,
    });
    await made.attachToCanvas(part("canvas"));
    made.setSliceType(made.sliceTypeMultiplanar);
    return made;
  };

  const redraw = () => {
    if (!scene) return;
    const filled = part("show-filled").checked;
    scene.setAtlasOutline(filled ? 0 : OUTLINE_OPACITY);
    ["reference", "prediction"].forEach((name, place) => {
      if (scene.volumes[place + 1]) scene.setOpacity(place + 1, part(`show-${name}`).checked ? (filled ? FILLED_OPACITY : FAINT_OPACITY) : 0);
    });
  };

  const load = async (content) => {
    while (scene.volumes.length) scene.removeVolume(scene.volumes[0]);
    for (const name of ["image", "reference", "prediction"]) {
      const volume = await niivue.NVImage.loadFromBase64({ base64: content[name], name: `${name}.nii.gz` });
      if (name !== "image") {
        const [R, G, B] = colour(name).map((value) => Array(256).fill(value));
        volume.setColormapLabel({ R, G, B, A: [0, ...Array(255).fill(255)], I: [...Array(256).keys()] });
      }
      scene.addVolume(volume);
    }
    scene.scene.crosshairPos = scene.mm2frac(content.centre);
    redraw();
    scene.updateGLVolume();
  };

  const open = async (button) => {
    part("viewer-title").textContent = button.dataset.title;
    words.textContent = "Loading.";
    viewer.showModal();
    try {
      scene = await (starting ??= start());
      await load(JSON.parse(button.nextElementSibling.textContent));
      const note = button.dataset.note ? ` Shown: ${button.dataset.note}.` : "";
      words.textContent = `Wheel: next slice. Click or drag: move the cross. Right button: grey window.${note}`;
    } catch (error) {
      starting = scene && starting;
      words.textContent = `The viewer did not start: ${error.message} The slices on the page remain.`;
    }
  };

  document.querySelectorAll("button.open").forEach((button) => button.addEventListener("click", () => open(button)));
  part("viewer-close").addEventListener("click", () => viewer.close());
  for (const id of ["show-reference", "show-prediction", "show-filled"]) part(id).addEventListener("change", redraw);
}
