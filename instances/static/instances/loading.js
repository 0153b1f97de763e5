// What a visit may never need is in later.js, and is loaded when it is first used. A stop needs none of it.

let loading = null;

// Returns the module. Rejects with a sentence when it can't be loaded; the next use tries again.
export function loadLater() {
    loading ||= import('./later.js').catch(() => {
        loading = null;
        throw new Error("This part of the page can't be loaded. Try again, or reload the page.");
    });
    return loading;
}
