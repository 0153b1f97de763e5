// What Novita's statuses mean. The server's table (instance.py) stands in the page; nothing here repeats it.

const groups = JSON.parse(document.getElementById('statuses').textContent);
const statuses = Object.fromEntries(Object.entries(groups).flatMap(([group, meaning]) => (
    Object.entries(meaning.statuses).map(([status, label]) => [status, {label, group}])
)));

// A page that was loaded before an upgrade can meet a group that its table lacks.
function getMeaning(one) {
    return Object.hasOwn(groups, one.group) ? groups[one.group] : groups.other;
}

// The word for people; an unknown status keeps its name.
export function getLabel(status) {
    return Object.hasOwn(statuses, status) ? statuses[status].label : status;
}

// The word for people that counts a status: that of its group, or its own where the group says nothing.
export function getCountedLabel(status) {
    const group = Object.hasOwn(statuses, status) ? statuses[status].group : 'other';
    return group === 'other' ? getLabel(status) : groups[group].label;
}

export function listGroups() {
    return Object.keys(groups);
}

export function getGroupLabel(group) {
    return groups[group].label;
}

export function isMoving(one) {
    return Boolean(getMeaning(one).isMoving);
}

// Whether it is billed, and nothing stops it yet.
export function needsStop(one) {
    return Boolean(getMeaning(one).needsStop);
}

// Whether an operation can request it, now or as soon as Novita accepts it.
export function canRequest(kind, one) {
    return getMeaning(one).requestable.includes(kind);
}
