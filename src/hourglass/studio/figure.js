// Draws a figure of plotly. The value is JSON; "var(--name)" stands for a colour of the page. `element`, `trigger`, `props` and `watch` are gradio's.
const canvas = document.createElement("canvas"), webgl = !!(canvas.getContext("webgl2") || canvas.getContext("webgl"));
let drawnIn = null;
// Plotly's script is large: only who looks at a figure loads it, once.
const library = () => window.plotlyScript ??= new Promise((done, failed) => {
  document.head.append(Object.assign(document.createElement("script"), {src: "/plotly.js", onload: done, onerror: failed}));
});
async function draw() {
  const place = element.querySelector(".figure");
  if (!place) return;
  if (!props.value) {
    if (window.Plotly) Plotly.purge(place);
    place.replaceChildren();
    place.classList.remove("full");
    drawnIn = null;
    return;
  }
  await library();
  while (place.isConnected && !place.clientWidth) await new Promise(done => setTimeout(done, 50)); // its tab is about to be shown
  const style = getComputedStyle(document.documentElement);
  const figure = JSON.parse(props.value.replace(/"var\((--[\w-]+)\)"/g, (_, name) => JSON.stringify(style.getPropertyValue(name).trim())));
  if (!webgl) for (const trace of figure.data) if (trace.type === "scattergl") trace.type = "scatter";
  // Named one by one: among plotly's own is one that uploads the figure.
  const buttons = [...(figure.layout.dragmode === "lasso" ? ["lasso2d"] : []), "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"];
  place.classList.add("full");
  Object.assign(figure.layout, {width: place.clientWidth, height: place.clientHeight});
  await Plotly.react(place, figure.data, figure.layout, {displaylogo: false, scrollZoom: true, plotlyServerURL: "", modeBarButtons: [buttons]});
  if (drawnIn === place) return;
  drawnIn = place;
  new ResizeObserver(() => {
    if (place.clientWidth && place._fullLayout && place.clientWidth !== place._fullLayout.width) Plotly.relayout(place, {width: place.clientWidth, height: place.clientHeight});
  }).observe(place);
  place.on("plotly_click", event => {
    const sent = event.points[0]?.customdata;
    if (typeof sent === "string" && sent) {
      const message = JSON.parse(sent);
      trigger("concept" in message || "document" in message ? "select" : "click", message);
    }
  });
  place.on("plotly_selected", event => {
    if (event?.points) trigger("click", {documents: event.points.map(point => JSON.parse(point.customdata).document)});
  });
  place.on("plotly_deselect", () => trigger("click", {documents: []}));
}
watch("value", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
draw();
