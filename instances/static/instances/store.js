// What this browser keeps for the visitor. Where it keeps nothing, a value lasts as long as the page.

export function createStore(name) {
    const key = `panel.${name}`;
    let value = null;
    try {
        value = localStorage.getItem(key);
    } catch {
        // Storage is off: nothing was kept.
    }

    return {
        read: () => value,
        // Returns whether the browser keeps it.
        write(text) {
            value = text;
            try {
                localStorage.setItem(key, text);
                return true;
            } catch {
                return false;
            }
        },
    };
}
