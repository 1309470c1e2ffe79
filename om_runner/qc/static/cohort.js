// Filters by name, keeps ratings in the browser, exports them as a table. Ratings belong to the cohort of data-cohort.
// Without scripts the table is there in its order.
(function () {
  "use strict";
  var root = document.documentElement, cohort = document.getElementById("cohort"), table = document.querySelector("#cohort table");
  root.classList.add("js");
  if (!table) { return; }
  var rows = Array.prototype.slice.call(table.tBodies[0].rows);
  var filter = document.getElementById("filter"), only = document.getElementById("only"), count = document.getElementById("count");
  var said = document.getElementById("said"), key = "vxm-qc " + cohort.dataset.cohort, ratings = {};
  function nameOf(row) { return row.cells[0].textContent; }
  function entry(name) { return Object.prototype.hasOwnProperty.call(ratings, name) ? ratings[name] : {}; }
  function load() {
    try {
      var found = JSON.parse(localStorage.getItem(key) || "{}");
      if (found && typeof found === "object") { ratings = found; }
    } catch (error) { said.textContent = "This browser keeps no ratings for this page; export them before you leave."; }
  }
  function keep() {
    try { localStorage.setItem(key, JSON.stringify(ratings)); }
    catch (error) { said.textContent = "This browser keeps no ratings for this page; export them before you leave."; }
    tell();
  }
  function tell() {
    var shown = rows.filter(function (row) { return !row.hidden; }).length;
    var rated = rows.filter(function (row) { return entry(nameOf(row)).rating; }).length;
    count.textContent = shown + " of " + rows.length + " shown, " + rated + " rated";
  }
  function apply() {
    var wanted = filter.value.trim().toLowerCase(), which = only.value;
    rows.forEach(function (row) {
      var rating = entry(nameOf(row)).rating || "";
      var warned = row.querySelector(".warned").dataset.v !== "0.0";
      var fits = which === "all" || (which === "warned" ? warned : which === "unrated" ? !rating : rating === which);
      row.hidden = nameOf(row).toLowerCase().indexOf(wanted) < 0 || !fits;
    });
    tell();
  }
  function option(value, words) {
    var made = document.createElement("option");
    made.value = value; made.textContent = words;
    return made;
  }
  function control(row) {
    var name = nameOf(row), cell = row.cells[row.cells.length - 1];
    var select = document.createElement("select"), note = document.createElement("input");
    [["", "\u2013"], ["accept", "accept"], ["doubt", "doubt"], ["reject", "reject"]].forEach(function (pair) {
      select.appendChild(option(pair[0], pair[1]));
    });
    select.setAttribute("aria-label", "rating of " + name);
    note.type = "text"; note.maxLength = 500; note.placeholder = "note"; note.setAttribute("aria-label", "note on " + name);
    select.value = entry(name).rating || ""; note.value = entry(name).note || "";
    function order() { cell.dataset.v = String(["", "accept", "doubt", "reject"].indexOf(select.value)); }
    function change() {
      ratings[name] = {rating: select.value, note: note.value};
      if (!select.value && !note.value) { delete ratings[name]; }
      order(); keep();
    }
    select.addEventListener("change", change); note.addEventListener("input", change);
    cell.textContent = ""; cell.appendChild(select); cell.appendChild(document.createTextNode(" ")); cell.appendChild(note);
    order();
  }
  function plain(text) { return String(text || "").replace(/[\t\r\n]+/g, " "); }
  function asTable() {
    var lines = rows.map(nameOf).sort().map(function (name) {
      return [plain(name), entry(name).rating || "n/a", plain(entry(name).note) || "n/a"].join("\t");
    });
    return ["subject\trating\tnote"].concat(lines).join("\n") + "\n";
  }
  document.getElementById("export").addEventListener("click", function () {
    var link = document.createElement("a"), address = URL.createObjectURL(new Blob([asTable()], {type: "text/tab-separated-values"}));
    link.href = address; link.download = "qc_ratings.tsv";
    document.body.appendChild(link); link.click(); link.remove();
    setTimeout(function () { URL.revokeObjectURL(address); }, 1000);
  });
  load();
  rows.forEach(control);
  filter.addEventListener("input", apply); only.addEventListener("change", apply);
  apply();
})();
