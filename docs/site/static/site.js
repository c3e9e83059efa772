// For readers who use a keyboard or a screen reader: names for the two side bars, and code that scrolls with the keys.
document.addEventListener("DOMContentLoaded", () => {
  document.querySelector(".sidebar-drawer")?.setAttribute("aria-label", "Pages");
  document.querySelector(".toc-drawer")?.setAttribute("aria-label", "On this page");
  for (const box of document.querySelectorAll("pre, .table-wrapper, math[display=block]")) box.tabIndex = 0;
});
