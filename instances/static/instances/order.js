// The order of names, and which texts count as equal. The rules are those of queries.py: a page looks the same with and
// without its script.

export function fold(text) {
    return text.normalize('NFKC').toUpperCase().toLowerCase().normalize('NFKC');
}

// Words and the numbers between them; a number as its length and its digits, which puts 2 before 10.
export function getNaturalKey(text) {
    const words = fold(text).split(/([0-9]+)/);
    const key = [];
    for (let at = 0; at + 1 < words.length; at += 2) {
        const number = words[at + 1].replace(/^0+/, '');
        key.push(words[at], number.length, number);
    }
    key.push(words.at(-1), -1, '');
    return key;
}

export function compareKeys(a, b) {
    for (let at = 0; at < Math.min(a.length, b.length); at += 1) {
        const order = typeof a[at] === 'number' ? a[at] - b[at] : compareTexts(a[at], b[at]);
        if (order) {
            return order;
        }
    }
    return a.length - b.length;
}

// Returns a sorted copy; equal names are sorted by id.
export function sortByName(listed, getName, getId) {
    const keys = new Map(listed.map(one => [one, getNaturalKey(getName(one))]));
    return [...listed].sort((a, b) => compareKeys(keys.get(a), keys.get(b)) || compareTexts(getId(a), getId(b)));
}

// Compares characters; < would compare halves of some.
export function compareTexts(a, b) {
    let at = 0;
    while (at < a.length && at < b.length && a[at] === b[at]) {
        at += 1;
    }
    // The first halves are equal, so a second half belongs to the character that starts before it.
    const isSecondHalf = at > 0 && /[\ud800-\udbff]/.test(a[at - 1]);
    const from = isSecondHalf ? at - 1 : at;
    return (a.codePointAt(from) ?? -1) - (b.codePointAt(from) ?? -1);
}
