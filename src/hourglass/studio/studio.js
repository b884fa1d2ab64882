// Runs once for every view. `element`, `trigger` and `watch` are gradio's.
const to = message => trigger("document" in message || "concept" in message || "id" in message ? "select" : "click", message);
const tell = target => { if (!target.disabled) to(JSON.parse(target.dataset.send)); };
element.addEventListener("click", event => {
  const target = event.target.closest("[data-send]");
  if (target) tell(target);
});
element.addEventListener("keydown", event => {
  const row = event.target.closest("tr[data-send]");
  if (row && (event.key === "Enter" || event.key === " ")) { event.preventDefault(); tell(row); }
});
element.addEventListener("change", event => {
  const field = event.target.closest("[data-weight]"), weight = Number(field?.value);
  if (field && field.value !== "" && Number.isFinite(weight)) to({weight: [Number(field.dataset.weight), weight]});
});

// A document that is open beside the others is closed by Escape, and what is in it is read first.
const close = () => element.querySelector(".drawer .close");
document.addEventListener("keydown", event => { if (event.key === "Escape" && close()) tell(close()); });
watch("value", () => close()?.focus());

// The same document in several columns.
element.addEventListener("mouseover", event => {
  const row = event.target.closest(".result.shared")?.dataset.row;
  for (const result of element.querySelectorAll(".result.shared")) result.classList.toggle("same", result.dataset.row === row);
});

// A text token by token: what fires where.
let kept = null, chosen = null;
const box = () => element.querySelector(".reading");
const fires = token => token.dataset.f.trim().split(" ").map(pair => pair.split(":").map(Number));
function paint(feature) {
  for (const token of element.querySelectorAll(".reading .t")) {
    const found = fires(token).find(([number]) => number === feature);
    token.style.background = found ? `rgba(var(--mark), ${(.15 + .007 * found[1]).toFixed(2)})` : "";
  }
  for (const say of element.querySelectorAll(".says li")) say.classList.toggle("on", Number(say.dataset.f) === feature);
}
function show(token) {
  const list = element.querySelector(".here ul");
  if (!list) return;
  element.querySelectorAll(".t.at").forEach(other => other.classList.remove("at"));
  element.querySelector(".here").classList.toggle("full", !!token);
  if (!token) return list.replaceChildren();
  token.classList.add("at");
  list.replaceChildren(...fires(token).map(([feature, strength]) => {
    const source = element.querySelector(`.says li[data-f="${feature}"]`), item = document.createElement("li");
    item.append(...[...source.children].map(child => child.cloneNode(true)));
    item.dataset.f = feature;
    item.querySelector(".bar i").style.width = strength + "%";
    return item;
  }));
}
function begin() {
  kept = null;
  if (!box()) return;
  chosen = Number(box().dataset.first);
  show(null);
  paint(chosen);
}
element.addEventListener("mouseover", event => {
  const token = event.target.closest(".t"), say = event.target.closest(".says li, .here li");
  if (token && !kept) show(token);
  if (say) paint(Number(say.dataset.f));
  else if (box()) paint(chosen);
});
element.addEventListener("click", event => {
  const token = event.target.closest(".t"), say = event.target.closest(".mark");
  if (token) { kept = kept === token ? null : token; show(token); }
  else if (say) { chosen = Number(say.closest("li").dataset.f); paint(chosen); }
});
watch("value", begin);
begin();
