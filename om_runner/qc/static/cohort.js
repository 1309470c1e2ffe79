// Filters by name, rates rows by hand or by key, exports the ratings as a table. Without scripts the table is there in its
// order.
(function () {
  "use strict";
  var ratings = vxmRatings, table = document.querySelector("#cohort table");
  if (!table || !table.rowsOf) { return; }
  var filter = document.getElementById("filter"), only = document.getElementById("only"), count = document.getElementById("count");
  var rows = table.rowsOf, current = null;
  function nameOf(row) { return row.cells[0].textContent; }
  function tell() {
    var rated = rows.all().filter(function (row) { return ratings.of(nameOf(row)).rating; }).length;
    count.textContent = rows.fitting().length + " of " + rows.all().length + " shown, " + rated + " rated";
  }
  function apply() {
    var wanted = filter.value.trim().toLowerCase(), which = only.value;
    rows.filter(function (row) {
      var rating = ratings.of(nameOf(row)).rating || "";
      var warned = row.querySelector(".warned").dataset.v !== "0.0";
      var fits = which === "all" || (which === "warned" ? warned : which === "unrated" ? !rating : rating === which);
      return nameOf(row).toLowerCase().indexOf(wanted) >= 0 && fits;
    });
    tell();
  }
  function option(value, words) {
    var made = document.createElement("option");
    made.value = value; made.textContent = words;
    return made;
  }
  function show(row) {
    var entry = ratings.of(nameOf(row)), cell = row.cells[row.cells.length - 1], select = cell.querySelector("select");
    select.value = entry.rating || ""; cell.querySelector("input").value = entry.note || "";
    cell.dataset.v = String(ratings.words.indexOf(select.value) + 1);
  }
  function control(row) {
    var name = nameOf(row), cell = row.cells[row.cells.length - 1];
    if (!cell.querySelector("select")) {
      var select = document.createElement("select"), note = document.createElement("input");
      select.appendChild(option("", "\u2013"));
      ratings.words.forEach(function (word) { select.appendChild(option(word, word)); });
      select.setAttribute("aria-label", "rating of " + name);
      note.type = "text"; note.maxLength = 500; note.placeholder = "note"; note.setAttribute("aria-label", "note on " + name);
      select.addEventListener("change", function () { rate(row, {rating: select.value}); });
      note.addEventListener("input", function () { rate(row, {note: note.value}); });
      cell.textContent = ""; cell.appendChild(select); cell.appendChild(document.createTextNode(" ")); cell.appendChild(note);
    }
    show(row);
  }
  function rate(row, part) { ratings.change(nameOf(row), part); show(row); tell(); }
  function mark(row) {
    if (current) { current.classList.remove("current"); }
    current = row; row.classList.add("current");
  }
  function choose(row) { mark(row); row.cells[0].querySelector("a").focus(); row.scrollIntoView({block: "nearest"}); }
  function step(by) {
    var shown = rows.shown(), at = shown.indexOf(current), next = at < 0 ? 0 : at + by;
    if (next >= 0 && next < shown.length) { choose(shown[next]); return; }
    if (at >= 0 && rows.turn(by)) { shown = rows.shown(); choose(shown[by > 0 ? 0 : shown.length - 1]); }
  }
  document.addEventListener("keydown", function (event) {
    if (ratings.typing(event)) { return; }
    if (event.key === "n" || event.key === "p") { if (rows.shown().length) { step(event.key === "n" ? 1 : -1); } return; }
    if (current && current.parentNode && Object.prototype.hasOwnProperty.call(ratings.keys, event.key)) {
      rate(current, {rating: ratings.keys[event.key]});
    }
  });
  table.addEventListener("focusin", function (event) {
    var row = event.target.closest("tbody tr");
    if (row) { mark(row); }
  });
  function plain(text) { return String(text || "").replace(/[\t\r\n]+/g, " "); }
  function asTable() {
    var lines = rows.all().map(nameOf).sort().map(function (name) {
      var entry = ratings.of(name);
      return [plain(name), entry.rating || "n/a", plain(entry.note) || "n/a"].join("\t");
    });
    return ["subject\trating\tnote"].concat(lines).join("\n") + "\n";
  }
  document.getElementById("export").addEventListener("click", function () {
    var link = document.createElement("a"), address = URL.createObjectURL(new Blob([asTable()], {type: "text/tab-separated-values"}));
    link.href = address; link.download = "qc_ratings.tsv";
    document.body.appendChild(link); link.click(); link.remove();
    setTimeout(function () { URL.revokeObjectURL(address); }, 1000);
  });
  function again() { ratings.load(); rows.shown().forEach(show); tell(); }
  // Back from a subject's page the browser may show this one as it was.
  window.addEventListener("pageshow", function (event) { if (event.persisted) { again(); } });
  window.addEventListener("storage", again);
  rows.each = control;
  filter.addEventListener("input", apply); only.addEventListener("change", apply);
  apply();
})();
