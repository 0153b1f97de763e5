// Menus that are a <details>: a press or the focus elsewhere closes them, and so does Escape.

export function watchMenus() {
    const listOpen = () => [...document.querySelectorAll('details.menu[open]')];

    for (const type of ['click', 'focusin']) {
        document.addEventListener(type, event => {
            for (const menu of listOpen().filter(one => !one.contains(event.target))) {
                menu.open = false;
            }
        });
    }
    document.addEventListener('keydown', event => {
        const [menu] = event.key === 'Escape' ? listOpen() : [];
        if (menu) {
            menu.open = false;
            menu.querySelector('summary').focus();
            // The key has done its work.
            event.stopPropagation();
        }
    }, {capture: true});
}
