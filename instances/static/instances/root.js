// Where the panel begins on its host: `/`, or a path such as `/panel/`. A module is served three folders below.

const root = new URL('../../..', import.meta.url).pathname;

// Returns the address on the host of a path that begins at the panel: '/api/instances'. Links of other kinds stay.
export function locate(path) {
    return path.startsWith('/') ? root + path.slice(1) : path;
}
