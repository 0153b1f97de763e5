// The operations that were dismissed in this browser. Without storage, a dismissal lasts as long as the page.

const KEY = 'dismissedOperation';

export function createDismissed() {
    // The times of the last operation that was dismissed; those before it are dismissed with it.
    let last = {createdAt: '', finishedAt: ''};

    function readLast() {
        try {
            return JSON.parse(localStorage.getItem(KEY)) || last;
        } catch {
            return last;
        }
    }

    function has(operation) {
        const {createdAt, finishedAt} = readLast();
        // A running operation has no `finishedAt`: both comparisons are false.
        return operation.finishedAt < finishedAt
            || (operation.finishedAt === finishedAt && operation.createdAt <= createdAt);
    }

    function add(operation) {
        if (has(operation)) {
            return;
        }
        last = {createdAt: operation.createdAt, finishedAt: operation.finishedAt};
        try {
            localStorage.setItem(KEY, JSON.stringify(last));
        } catch {
            // It stays hidden until the page is loaded again.
        }
    }

    return {has, add};
}
