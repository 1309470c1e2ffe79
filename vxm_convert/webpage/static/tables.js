// Tables of class `sortable`: a click on a heading sorts, and a long table shows one page of rows at a time, which keeps
// the document small. Printing shows all rows. Without scripts every row is there, in the order as written.
// First click: largest first for numbers, A first for text; a second click turns it round.
// Cells without a figure stay last either way; equal cells keep their order.
// Other scripts find `table.rowsOf`: all(), fitting(), shown(), filter(fits), turn(pages), and each(row) called before a row is shown.
(function () {
  "use strict";
  // As in page.css.
  var PAGE = 100, order = new Intl.Collator("en", {numeric: true, sensitivity: "base"});
  document.documentElement.classList.add("js");
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
  function button(words, act) {
    var made = document.createElement("button");
    made.type = "button"; made.className = "do"; made.textContent = words;
    made.addEventListener("click", act);
    return made;
  }
  function manage(table) {
    var body = table.tBodies[0], rows = Array.prototype.slice.call(body.rows), fitting = rows, fits = null;
    var at = 0, whole = false, bar = null, api = {each: null};
    function pages() { return Math.max(1, Math.ceil(fitting.length / PAGE)); }
    function draw() {
      fitting = fits ? rows.filter(fits) : rows;
      if (!whole) { at = Math.min(Math.max(at, 0), pages() - 1); }
      var first = whole ? 0 : at * PAGE, shown = api.shown(), lines = document.createDocumentFragment();
      shown.forEach(function (row) { if (api.each) { api.each(row); } lines.appendChild(row); });
      while (body.firstChild) { body.removeChild(body.firstChild); }
      body.appendChild(lines);
      if (bar) {
        bar.box.hidden = fitting.length <= PAGE;
        bar.count.textContent = "rows " + (first + 1) + " to " + (first + shown.length) + " of " + fitting.length;
        bar.back.disabled = whole || at === 0; bar.on.disabled = whole || at === pages() - 1;
        bar.all.setAttribute("aria-pressed", whole ? "true" : "false");
      }
    }
    function print(all) { var was = whole; whole = all; draw(); whole = was; }
    api.all = function () { return rows; };
    api.fitting = function () { return fitting; };
    api.shown = function () { return whole ? fitting : fitting.slice(at * PAGE, (at + 1) * PAGE); };
    api.filter = function (wanted) { fits = wanted; at = 0; draw(); };
    api.turn = function (by) { var was = at; at += by; draw(); return at !== was; };
    function sort(header, column) {
      var items = rows.map(function (row, place) { return read(row, column, place); });
      var numeric = items.some(function (item) { return item.value !== null; });
      var now = header.getAttribute("aria-sort");
      var next = now === null ? (numeric ? "descending" : "ascending") : now === "ascending" ? "descending" : "ascending";
      items.sort(function (a, b) { return compare(a, b, next === "ascending" ? 1 : -1, numeric); });
      rows = items.map(function (item) { return item.row; });
      Array.prototype.forEach.call(header.parentNode.cells, function (cell) { cell.removeAttribute("aria-sort"); });
      header.setAttribute("aria-sort", next);
      at = 0; draw();
    }
    Array.prototype.forEach.call(rows.length > 1 ? table.tHead.rows[0].cells : [], function (header, column) {
      var made = document.createElement("button");
      made.type = "button";
      while (header.firstChild) { made.appendChild(header.firstChild); }
      header.appendChild(made);
      made.addEventListener("click", function () { sort(header, column); });
    });
    if (rows.length > PAGE) {
      bar = {box: document.createElement("div"), count: document.createElement("span")};
      bar.box.className = "controls"; bar.count.setAttribute("role", "status");
      bar.back = button("\u2190 rows before", function () { api.turn(-1); });
      bar.on = button("rows after \u2192", function () { api.turn(1); });
      bar.all = button("all rows", function () { whole = !whole; draw(); });
      [bar.back, bar.count, bar.on, bar.all].forEach(function (part) { bar.box.appendChild(part); });
      table.parentNode.parentNode.insertBefore(bar.box, table.parentNode);
      window.addEventListener("beforeprint", function () { print(true); });
      window.addEventListener("afterprint", function () { print(whole); });
      draw();
    }
    table.classList.add("paged");
    table.rowsOf = api;
  }
  Array.prototype.forEach.call(document.querySelectorAll("table.sortable"), manage);
})();
