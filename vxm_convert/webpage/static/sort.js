// Sorts tables of class `sortable` by a click on a heading; without scripts the order is as written.
// First click: largest first for numbers, A first for text; a second click turns it round.
// Cells without a figure stay last either way; equal cells keep their order.
(function () {
  "use strict";
  var order = new Intl.Collator("en", {numeric: true, sensitivity: "base"});
  function compare(a, b, sign, numeric) {
    if (numeric) {
      if (a.value === null || b.value === null) {
        return (a.value === null ? 1 : 0) - (b.value === null ? 1 : 0) || a.at - b.at;
      }
      return sign * (a.value - b.value) || a.at - b.at;
    }
    return sign * order.compare(a.text, b.text) || a.at - b.at;
  }
  function read(row, column, at) {
    var cell = row.cells[column], value = cell.dataset.v;
    return {row: row, at: at, text: cell.textContent, value: value === undefined ? null : Number(value)};
  }
  function sort(table, header, column) {
    var body = table.tBodies[0];
    var items = Array.prototype.map.call(body.rows, function (row, at) { return read(row, column, at); });
    var numeric = items.some(function (item) { return item.value !== null; });
    var now = header.getAttribute("aria-sort");
    var next = now === null ? (numeric ? "descending" : "ascending") : now === "ascending" ? "descending" : "ascending";
    items.sort(function (a, b) { return compare(a, b, next === "ascending" ? 1 : -1, numeric); });
    items.forEach(function (item) { body.appendChild(item.row); });
    Array.prototype.forEach.call(header.parentNode.cells, function (cell) { cell.removeAttribute("aria-sort"); });
    header.setAttribute("aria-sort", next);
  }
  Array.prototype.forEach.call(document.querySelectorAll("table.sortable"), function (table) {
    Array.prototype.forEach.call(table.tHead.rows[0].cells, function (header, column) {
      var button = document.createElement("button");
      button.type = "button";
      while (header.firstChild) { button.appendChild(header.firstChild); }
      header.appendChild(button);
      button.addEventListener("click", function () { sort(table, header, column); });
    });
  });
})();
