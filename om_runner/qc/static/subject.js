// Rates this subject by button or key, and chooses the structure whose outline lies on the pictures.
(function () {
  "use strict";
  var ratings = vxmRatings, name = document.getElementById("rating").dataset.subject, note = document.getElementById("note");
  var buttons = Array.prototype.slice.call(document.querySelectorAll("button[data-rate]"));
  var structure = document.getElementById("structure"), chosen = document.querySelectorAll(".chosen");
  function show() {
    var entry = ratings.of(name);
    buttons.forEach(function (button) {
      if (button.dataset.rate) { button.setAttribute("aria-pressed", button.dataset.rate === entry.rating ? "true" : "false"); }
    });
    if (note !== document.activeElement) { note.value = entry.note || ""; }
  }
  function rate(word) { ratings.change(name, {rating: word}); show(); }
  buttons.forEach(function (button) { button.addEventListener("click", function () { rate(button.dataset.rate); }); });
  note.addEventListener("input", function () { ratings.change(name, {note: note.value}); });
  document.addEventListener("keydown", function (event) {
    if (!ratings.typing(event) && Object.prototype.hasOwnProperty.call(ratings.keys, event.key)) { rate(ratings.keys[event.key]); }
  });
  window.addEventListener("storage", function () { ratings.load(); show(); });
  function outline() {
    var values = [], wanted = structure.value;
    for (var at = 0; at < 256; at += 1) { values.push(at > 0 && (wanted === "all" || String(at) === wanted) ? 1 : 0); }
    Array.prototype.forEach.call(chosen, function (part) { part.setAttribute("tableValues", values.join(" ")); });
  }
  if (structure) { structure.addEventListener("change", outline); }
  show();
})();
