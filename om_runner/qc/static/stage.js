// Pictures of the stage take turns: buttons, keys, and a change every 0.7 s, which is slower than any flashing that harms.
// Without scripts the pictures are there one below the other.
(function () {
  "use strict";
  var stage = document.querySelector(".stage"), timer = null, pair = null, turn = 0;
  if (!stage) { return; }
  var figures = stage.querySelectorAll("figure");
  var calm = window.matchMedia("(prefers-reduced-motion: reduce)");
  var buttons = Array.prototype.slice.call(document.querySelectorAll("button[data-show], button[data-flick]"));
  function show(name) {
    Array.prototype.forEach.call(figures, function (item) {
      var on = item.dataset.name === name;
      item.classList.toggle("shown", on);
      item.setAttribute("aria-hidden", on ? "false" : "true");
    });
    buttons.forEach(function (button) {
      var on = button.dataset.show ? button.dataset.show === name : timer !== null && button.dataset.flick === pair;
      button.setAttribute("aria-pressed", on ? "true" : "false");
    });
  }
  function stop() { if (timer !== null) { clearInterval(timer); timer = null; } }
  function step() { var names = pair.split(" "); show(names[turn % 2]); turn += 1; }
  function flick(wanted) {
    var running = timer !== null && pair === wanted;
    stop();
    if (pair !== wanted) { pair = wanted; turn = 0; }
    // Who asked for less motion changes the picture by hand, one press at a time.
    if (calm.matches) { step(); return; }
    if (!running) { timer = setInterval(step, 700); step(); } else { show(pair.split(" ")[(turn + 1) % 2]); }
  }
  function press(button) {
    if (button.dataset.flick) { flick(button.dataset.flick); } else { stop(); show(button.dataset.show); }
  }
  buttons.forEach(function (button) { button.addEventListener("click", function () { press(button); }); });
  document.addEventListener("keydown", function (event) {
    if (vxmRatings.typing(event)) { return; }
    var found = buttons.filter(function (button) { return button.dataset.key === event.key.toLowerCase(); })[0];
    var link = document.querySelector("a[data-key='" + (/^[a-z]$/.test(event.key) ? event.key : "") + "']");
    if (found) { press(found); event.preventDefault(); } else if (link) { link.click(); }
  });
  show(figures[figures.length - 1].dataset.name);
})();
