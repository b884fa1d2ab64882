// A menu under the text boxes whose ids begin with what it is for: all of it, whatever is typed, and Enter means what is typed. `element` is gradio's.
const menu = element.querySelector(".menu"), choices = [...menu.querySelectorAll("button")];
let box = null;
const boxOf = target => target.closest?.(`[id^="${menu.dataset.for}"] :is(input, textarea)`);
const close = () => { menu.hidden = true; };
function open(field) {
  box = field;
  const at = field.closest(".block").getBoundingClientRect(), left = Math.min(at.left, innerWidth - Math.max(at.width, 288) - 8);
  Object.assign(menu.style, {left: Math.max(8, left) + "px", top: at.bottom + "px", minWidth: Math.max(at.width, 288) + "px"});
  menu.hidden = false;
}
document.addEventListener("focusin", event => { const field = boxOf(event.target); if (field) open(field); else if (!menu.contains(event.target)) close(); });
document.addEventListener("mousedown", event => { const field = boxOf(event.target); if (field) open(field); else if (!menu.contains(event.target)) close(); });
document.addEventListener("scroll", event => { if (!menu.contains(event.target)) close(); }, true);
document.addEventListener("keydown", event => {
  if (menu.hidden) return;
  const at = choices.indexOf(document.activeElement);
  if (event.key === "Escape" || event.key === "Enter" && at < 0) { if (at >= 0) box.focus(); close(); }
  else if (event.key === "ArrowDown" || event.key === "ArrowUp" && at >= 0) {
    event.preventDefault();
    (choices[at + (event.key === "ArrowDown" ? 1 : -1)] ?? box).focus();
  }
});
menu.addEventListener("click", event => {
  const choice = event.target.closest("button");
  if (!choice) return;
  box.value = choice.dataset.text;
  box.dispatchEvent(new Event("input", {bubbles: true}));
  box.focus();
  close();
});
