// Light and dark: what the system prefers, unless the button said otherwise.

const prefersDark = matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  return document.documentElement.dataset.theme === "dark" ||
    (document.documentElement.dataset.theme === undefined && prefersDark.matches);
}

function showTheme() {
  byId("theme").textContent = isDark() ? "☀ Light" : "☾ Dark";
}

byId("theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  showTheme();
});
prefersDark.addEventListener("change", showTheme);
showTheme();
