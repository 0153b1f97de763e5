// The theme of Swagger UI, which has a class of its own for the dark one.

const root = document.documentElement;
const prefersDark = matchMedia('(prefers-color-scheme: dark)');

function show() {
    const theme = root.dataset.theme;
    root.classList.toggle('dark-mode', theme === 'dark' || (theme !== 'light' && prefersDark.matches));
}

show();
prefersDark.addEventListener('change', show);
new MutationObserver(show).observe(root, {attributeFilter: ['data-theme']});
