// A picture that is dropped anywhere but on a field of its own brings its parameters back.
const own = "#image, #editor";
const holdsFile = (event) => [...(event.dataTransfer?.items ?? [])].some((item) => item.kind === "file");
const isOurs = (event) => holdsFile(event) && !event.target.closest?.(own);
const shade = (isOver) => document.body.classList.toggle("dropping", isOver);
window.addEventListener("dragover", (event) => {
  shade(isOurs(event));
  if (isOurs(event)) event.preventDefault();
});
window.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) shade(false);
});
window.addEventListener("drop", (event) => {
  shade(false);
  if (!isOurs(event)) return;
  event.preventDefault();
  const input = document.querySelector("input[type=file]:has(+ #from_file)");
  input.files = event.dataTransfer.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
});
