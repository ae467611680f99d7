// Before anything is drawn: the colours that were chosen here last. Without a choice, those of the system.
(() => {
  try {
    const chosen = localStorage.getItem("kinfolk.theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch {
    // storage is turned off
  }
})();
