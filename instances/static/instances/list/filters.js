// Search and filters: their fields, and which instances match.

import {needsAttention} from '../cards/attention.js';
import {setText} from '../elements.js';
import {compareKeys, compareTexts, fold, getNaturalKey} from '../order.js';
import {getGroupLabel} from '../statuses.js';

const FIELDS = ['search', 'group', 'region', 'owner', 'project', 'attention'];
// The fields whose choices are the values of the instances.
const CHOICES = ['region', 'owner', 'project'];

export const EMPTY = Object.fromEntries(FIELDS.map(name => [name, '']));

export function createFilters({form, address, inventory}) {
    const {search: searchField, group: groupField} = form.elements;

    function select() {
        const {group, region, search, owner, project, attention} = address.query;
        const [foldedSearch, foldedRegion, foldedOwner, foldedProject] = [search, region, owner, project].map(fold);
        return inventory.instances.filter(one =>
            (!group || one.group === group) &&
            (!attention || needsAttention(one, attention)) &&
            (!foldedRegion || fold(one.region) === foldedRegion || fold(one.clusterId) === foldedRegion) &&
            (!foldedOwner || fold(one.owner || '') === foldedOwner) &&
            (!foldedProject || fold(one.project || '') === foldedProject) &&
            (!foldedSearch || inventory.matches(one, foldedSearch)));
    }

    function render() {
        if (inventory.instances !== null) {
            renderGroups();
            CHOICES.forEach(renderChoices);
        }
        for (const name of FIELDS) {
            const field = form.elements[name];
            if (field.value !== address.query[name] && document.activeElement !== field) {
                field.value = address.query[name];
            }
        }
        form.querySelector('[data-do=clear-filters]').hidden = !FIELDS.some(name => address.query[name]);
    }

    function renderGroups() {
        for (const option of [...groupField.options].filter(one => one.value)) {
            setText(option, `${getGroupLabel(option.value)} (${inventory.countGroup(option.value)})`);
        }
    }

    function renderChoices(name) {
        const field = form.elements[name];
        const known = new Set(inventory.instances.map(one => one[name]).filter(Boolean));
        if (address.query[name]) {
            known.add(address.query[name]);
        }
        const order = (a, b) => compareKeys(getNaturalKey(a), getNaturalKey(b)) || compareTexts(a, b);
        const values = ['', ...[...known].sort(order)];
        if (values.join('\n') !== [...field.options].map(option => option.value).join('\n')) {
            field.replaceChildren(...values.map(value => new Option(value || 'All', value)));
            field.value = address.query[name];
        }
        field.parentElement.hidden = name !== 'region' && !known.size;
    }

    function renderMatches(number) {
        const total = inventory.instances.length;
        setText(document.getElementById('matches'), number === total ? '' : `${number} of ${total} match`);
    }

    // After a step back the fields follow the address, even one that has the focus.
    function fill() {
        for (const name of FIELDS) {
            form.elements[name].value = address.query[name];
        }
    }

    function clear() {
        searchField.value = '';
        address.change({...EMPTY, page: 1}, {isStep: true});
        searchField.focus();
    }

    form.addEventListener('input', ({target}) => {
        address.change({[target.name]: target.value, page: 1}, {isStep: false});
    });

    return {select, render, renderMatches, fill, actions: {'clear-filters': clear}};
}
