// Ratings and notes of subjects, kept in the browser: the pages of one folder share them where the browser lets files
// share. `vxmRatings`: of(name), change(name, part), words, keys, typing(event). Those of a cohort have its data-cohort.
var vxmRatings = (function () {
  "use strict";
  var held = {}, said = document.getElementById("said");
  // A cohort in which every scan failed has nothing to rate.
  var home = document.querySelector("[data-cohort]"), key = "vxm-qc " + (home ? home.dataset.cohort : "");
  function complain() {
    said.textContent = "This browser keeps no ratings for this page; export them from the cohort's page before you leave it.";
  }
  function load() {
    try {
      var found = JSON.parse(localStorage.getItem(key) || "{}");
      if (found && typeof found === "object") { held = found; }
    } catch (error) { complain(); }
  }
  load();
  return {
    load: load,
    words: ["accept", "doubt", "reject"],
    keys: {a: "accept", d: "doubt", r: "reject", c: ""},
    of: function (name) { return Object.prototype.hasOwnProperty.call(held, name) ? held[name] : {}; },
    change: function (name, part) {
      // Another page may have written since this one read.
      load();
      var entry = this.of(name);
      entry = {rating: entry.rating || "", note: entry.note || ""};
      Object.keys(part).forEach(function (what) { entry[what] = part[what]; });
      if (entry.rating || entry.note) { held[name] = entry; } else { delete held[name]; }
      try { localStorage.setItem(key, JSON.stringify(held)); } catch (error) { complain(); }
    },
    typing: function (event) {
      return !document.getElementById("keys").checked || event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    }
  };
})();
