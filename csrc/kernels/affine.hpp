// Matrix products by the contract's rule: per output, fma chains over chunks of k, chunk sums added in order, then the
// bias. A micro-tile keeps rows x vectors of chains in registers; which tile computes an output never changes its bits.
#pragma once

#include "simd/vec.hpp"

namespace pynn::PYNN_ISA {
namespace {

template <class T> constexpr std::size_t panel_columns = Tile<T>::vectors * width<T>;
// A chunk of a block's rows of a (192 KiB) stays in the second-level cache beside one of its columns of b (128 KiB).
template <class T>
constexpr std::size_t block_rows =
    (std::size_t(192) << 10) / (affine_chunk * sizeof(T)) / Tile<T>::rows * Tile<T>::rows;

// The columns that a panel of so many takes when packed.
template <class T> constexpr std::size_t panel_padded(std::size_t columns) {
    return columns >= panel_columns<T> ? panel_columns<T> : (columns + width<T> - 1) / width<T> * width<T>;
}

// Columns of b whose rows are packed together: 256 bytes of each, as memory is read far faster so than line by line.
constexpr std::size_t row_bytes = 256;
template <class T>
constexpr std::size_t group_columns =
    (row_bytes / sizeof(T) < panel_columns<T> ? panel_columns<T> : row_bytes / sizeof(T)) / panel_columns<T> *
    panel_columns<T>;

// Rows of a group of whole panels: a part of each goes into every panel.
template <class T>
void pack_group(const T *b, std::ptrdiff_t b_row, std::size_t rows, std::size_t panels, T *packed,
                std::size_t panel_size) {
    constexpr std::ptrdiff_t ahead = 8;
    for (; rows > 0; --rows, b += b_row, packed += panel_columns<T>) {
        const T *from = b;
        T *to = packed;
        for (std::size_t p = 0; p < panels; ++p, from += panel_columns<T>, to += panel_size)
#pragma GCC unroll 4
            for (std::size_t j = 0; j < panel_columns<T>; j += width<T>) {
                if (j * sizeof(T) % 64 == 0) __builtin_prefetch(from + ahead * b_row + j);
                store(to + j, load<vec<T>>(from + j));
            }
    }
}

template <class T> constexpr std::size_t line_elements = 64 / sizeof(T);
constexpr std::size_t kept_by_caches = std::size_t(4) << 20; // bytes of a block's a that a third-level cache keeps
constexpr std::ptrdiff_t packing_ahead = 16;                 // rows of b
constexpr std::size_t ask_interval = 32;                     // of k, from one asking for what is used next to the other
constexpr std::size_t most_asked = 4;
constexpr int second_level = 2; // the cache asked to fetch: the first one is full of what tiles read now
constexpr std::size_t most_at_once = affine_chunk / ask_interval; // rows that a tile asks for, and tiles in one call

// Micro-tiles below each other: rows of a times a panel of b. Several in one call, as what a call costs is 4 % of a tile.
template <class T> struct TileWork {
    std::size_t tiles;
    const T *ahead; // what is asked for, four lines at a time:
    // from line to line, from one asking to the next, and from tile to tile
    std::ptrdiff_t ahead_line, ahead_stride, ahead_tile;
    std::size_t ahead_rows; // in one asking
    const T *a_ahead;       // of a packed a, what is asked for line by line, and how many lines each time
    std::size_t a_ahead_lines;
    std::size_t depth; // at most affine_chunk
    const T *a;
    std::ptrdiff_t a_stride; // of rows, or of columns where rows have unit stride
    std::ptrdiff_t a_tile;
    const T *b;
    std::ptrdiff_t b_stride;
    T *c;
    std::ptrdiff_t c_row;
    const T *bias;     // nullptr before the last chunk
    bool first;        // the first chunk: c is written, else added to
    std::size_t lanes; // of the last vector that belong to c; b read in place gives the last lanes, packed b the first
    bool past_cache;   // c, of whole vectors and written once, does not go by way of the caches
    std::size_t shift; // by how many columns the last vector of b begins early
    T *panel;          // where b is laid out, if it is
};

// Sums to c where not all lanes of the last vector belong to it. Apart, so that whole tiles have the registers.
template <class T, std::size_t Rows, std::size_t Vectors>
[[gnu::noinline]] void finish_partial(const TileWork<T> &work, T *c, const vec<T> (&sum)[Rows][Vectors]) {
    using V = vec<T>;
    const bool first = work.first, biased = work.bias != nullptr;
    // Of b read in place the last vector begins early, among columns of the vector before, and they stay as they are.
    const bool early = work.shift != 0;
    const std::size_t lanes = work.lanes;
    const std::ptrdiff_t c_row = work.c_row, last = static_cast<std::ptrdiff_t>((Vectors - 1) * width<T> - work.shift);
#pragma GCC unroll 8
    for (std::size_t j = 0; j < Vectors; ++j) {
        const bool whole = j + 1 < Vectors;
        const std::ptrdiff_t at = whole ? static_cast<std::ptrdiff_t>(j * width<T>) : last;
        T *to = c + at;
        V bias{};
        if (whole || early) {
            if (biased) bias = load<V>(work.bias + at);
#pragma GCC unroll 16
            for (std::size_t i = 0; i < Rows; ++i, to += c_row) {
                V value = sum[i][j];
                if (!first) value = load<V>(to) + value;
                if (biased) value = value + bias;
                store(to, whole ? value : select(from_lane<V>(work.shift), value, load<V>(to)));
            }
        } else {
            if (biased) bias = load_first<V>(work.bias + at, lanes, T(0));
#pragma GCC unroll 16
            for (std::size_t i = 0; i < Rows; ++i, to += c_row) {
                V value = sum[i][j];
                if (!first) value = load_first<V>(to, lanes, T(0)) + value;
                store_first(to, biased ? value + bias : value, lanes);
            }
        }
    }
}

// half: of the last vector no more than half the lanes belong to c, and that half alone is computed. packing: b is read in
// place and laid out as a panel on the way, for the tiles after this one.
enum Way { plain, half, packing };

// Transposed: a has unit stride along its rows; otherwise along its columns.
template <class T, std::size_t Rows, std::size_t Vectors, bool Transposed, Way Columns>
void tiles_below(const TileWork<T> &work) {
    constexpr bool Half = Columns == half;
    using V = vec<T>;
    using Last = std::conditional_t<Half, half_vec<T>, V>;
    constexpr std::size_t whole = Vectors - 1, half_width = width<T> / 2;
    // Rows are addressed from every third one, so that the pointers stay in registers.
    constexpr std::size_t pointers = (Rows + 2) / 3;
    const std::ptrdiff_t a_stride = work.a_stride, b_stride = work.b_stride, c_row = work.c_row, a_tile = work.a_tile;
    // Of b read in place the last vector begins early, and the lanes are its last ones.
    const std::ptrdiff_t last =
        static_cast<std::ptrdiff_t>(whole * width<T> - work.shift + (Half && work.shift != 0 ? half_width : 0));
    const bool past_cache = work.past_cache, first = work.first, biased = work.bias != nullptr;
    const T *next_a = work.a, *next_ahead = work.ahead, *a_ahead = work.a_ahead;
    T *next_c = work.c;
    for (std::size_t tiles = work.tiles; tiles > 0; --tiles) {
        V sum[Rows][Vectors];
#pragma GCC unroll 16
        for (std::size_t i = 0; i < Rows; ++i)
#pragma GCC unroll 8
            for (std::size_t j = 0; j < Vectors; ++j) sum[i][j] = V{};
        Last last_sum[Rows];
#pragma GCC unroll 16
        for (std::size_t i = 0; i < Rows; ++i) last_sum[i] = Last{};
        const T *a[pointers], *b = work.b, *ahead = next_ahead;
        T *panel = work.panel;
        T *c[pointers];
        for (std::size_t p = 0; p < pointers; ++p) {
            a[p] = next_a + static_cast<std::ptrdiff_t>(3 * p) * (Transposed ? 1 : a_stride);
            c[p] = next_c + static_cast<std::ptrdiff_t>(3 * p) * c_row;
        }
        next_a += a_tile;
        next_ahead += work.ahead_tile;
        next_c += static_cast<std::ptrdiff_t>(Rows) * c_row;
        const auto row = [&](std::size_t i) __attribute__((always_inline)) {
            return c[i / 3] + static_cast<std::ptrdiff_t>(i % 3) * c_row;
        };
        if (!past_cache) {
            // A row seldom begins with a line. In the first cache rows a power of two apart would drive each other out.
            const T *line = c[0];
#pragma GCC unroll 1
            for (std::size_t i = 0; i < Rows; ++i, line += c_row) {
#pragma GCC unroll 8
                for (std::size_t j = 0; j < Vectors; j += 64 / sizeof(V))
                    __builtin_prefetch(line + j * width<T>, 1, second_level);
                __builtin_prefetch(line + Vectors * width<T> - 1, 1, second_level);
            }
        }
        for (std::size_t left = work.depth; left > 0;) {
            for (std::size_t rows = work.ahead_rows; rows > 0; --rows) { // 256 bytes seldom begin with a line
#pragma GCC unroll 4
                for (std::ptrdiff_t j = 0; j < 4; ++j) __builtin_prefetch(ahead + j * work.ahead_line, 0, second_level);
                __builtin_prefetch(ahead + 4 * work.ahead_line - 1, 0, second_level);
                ahead += work.ahead_stride;
            }
            for (std::size_t lines = work.a_ahead_lines; lines > 0; --lines, a_ahead += line_elements<T>)
                __builtin_prefetch(a_ahead, 0, second_level);
            const std::size_t now = left < ask_interval ? left : ask_interval;
            left -= now;
            for (std::size_t k = now; k > 0; --k) {
                V column[Vectors];
#pragma GCC unroll 8
                for (std::size_t j = 0; j < whole; ++j) column[j] = load<V>(b + j * width<T>);
                const Last last_column = load<Last>(b + last);
                if constexpr (Columns == packing) {
#pragma GCC unroll 8
                    for (std::size_t j = 0; j < Vectors; j += 64 / sizeof(V))
                        __builtin_prefetch(b + packing_ahead * b_stride + j * width<T>);
                    __builtin_prefetch(b + packing_ahead * b_stride + Vectors * width<T> - 1);
#pragma GCC unroll 8
                    for (std::size_t j = 0; j < whole; ++j) store(panel + j * width<T>, column[j]);
                    store(panel + whole * width<T>, last_column);
                    panel += Vectors * width<T>;
                }
                if constexpr (Vectors >
                              Tile<T>::vectors + 1) // few rows wait for memory, and b's rows may lie pages apart
#pragma GCC unroll 4
                    for (std::size_t j = 0; j < Vectors; j += 64 / sizeof(V))
                        __builtin_prefetch(b + 16 * b_stride + j * width<T>);
#pragma GCC unroll 16
                for (std::size_t i = 0; i < Rows; ++i) {
                    V x = splat<V>(a[i / 3][static_cast<std::ptrdiff_t>(i % 3) * (Transposed ? 1 : a_stride)]);
#pragma GCC unroll 8
                    for (std::size_t j = 0; j < whole; ++j) sum[i][j] = fma(x, column[j], sum[i][j]);
                    if constexpr (Half)
                        last_sum[i] = fma(half_of<false>(x), last_column, last_sum[i]), keep_here(last_sum[i]);
                    else
                        last_sum[i] = fma(x, last_column, last_sum[i]);
                }
#pragma GCC unroll 5
                for (std::size_t p = 0; p < pointers; ++p) a[p] += Transposed ? a_stride : 1;
                b += b_stride;
            }
        }
#pragma GCC unroll 16
        for (std::size_t i = 0; i < Rows; ++i) {
            if constexpr (!Half)
                sum[i][whole] = last_sum[i];
            else if (work.shift != 0)
                sum[i][whole] = joined(Last{}, last_sum[i]);
            else
                sum[i][whole] = joined(last_sum[i], Last{});
        }
        if (past_cache) {
#pragma GCC unroll 16
            for (std::size_t i = 0; i < Rows; ++i)
#pragma GCC unroll 8
                for (std::size_t j = 0; j < Vectors; ++j) store_past_cache(row(i) + j * width<T>, sum[i][j]);
        } else if (work.lanes == width<T>) {
            if (!first)
#pragma GCC unroll 16
                for (std::size_t i = 0; i < Rows; ++i)
#pragma GCC unroll 8
                    for (std::size_t j = 0; j < Vectors; ++j) sum[i][j] = load<V>(row(i) + j * width<T>) + sum[i][j];
            if (biased)
#pragma GCC unroll 8
                for (std::size_t j = 0; j < Vectors; ++j)
#pragma GCC unroll 16
                    for (std::size_t i = 0; i < Rows; ++i) sum[i][j] = sum[i][j] + load<V>(work.bias + j * width<T>);
#pragma GCC unroll 16
            for (std::size_t i = 0; i < Rows; ++i)
#pragma GCC unroll 8
                for (std::size_t j = 0; j < Vectors; ++j) store(row(i) + j * width<T>, sum[i][j]);
        } else {
            V sums[Rows][Vectors];
#pragma GCC unroll 16
            for (std::size_t i = 0; i < Rows; ++i)
#pragma GCC unroll 8
                for (std::size_t j = 0; j < Vectors; ++j) sums[i][j] = sum[i][j];
            finish_partial<T, Rows, Vectors>(work, c[0], sums);
        }
    }
}

template <class T> using TileFunction = void (*)(const TileWork<T> &);

// Few rows are made up for by more vectors, where b is read in place: enough chains to keep the fma units busy. Up to
// most_rows_in_place go by row_by_row then.
constexpr std::size_t most_vectors = 8;
template <class T> constexpr std::size_t vectors_of_tile(std::size_t rows) {
    const std::size_t chains = Tile<T>::rows * Tile<T>::vectors, fit = chains / (rows + 1);
    return rows <= most_rows_in_place || fit <= Tile<T>::vectors ? Tile<T>::vectors
           : fit < most_vectors                                  ? fit
                                                                 : most_vectors;
}

// Where b read in place has one vector more than whole panels, a tile of fewer rows takes it along: alone it would have too few
// chains.
template <class T> constexpr std::size_t wide_vectors = Tile<T>::vectors + 1;
template <class T> constexpr std::size_t wide_rows = Tile<T>::rows * Tile<T>::vectors / wide_vectors<T>;

template <class T> constexpr std::size_t most_vectors_of_tile(std::size_t rows) {
    return rows <= wide_rows<T> && vectors_of_tile<T>(rows) < wide_vectors<T> ? wide_vectors<T>
                                                                              : vectors_of_tile<T>(rows);
}

template <class T> struct Tiles {
    TileFunction<T> of[Tile<T>::rows][most_vectors][2][3]; // by rows, vectors, transposed and way

    template <std::size_t Row, std::size_t Vectors> constexpr void add() {
        add_way<Row, Vectors, plain>();
        if constexpr (Tile<T>::halves) add_way<Row, Vectors, half>();
        if constexpr (Vectors == Tile<T>::vectors) add_way<Row, Vectors, packing>();
        if constexpr (Vectors > 1)
            add<Row, Vectors - 1>();
        else if constexpr (Row > 1)
            add<Row - 1, most_vectors_of_tile<T>(Row - 1)>();
    }
    template <std::size_t Row, std::size_t Vectors, Way Columns> constexpr void add_way() {
        of[Row - 1][Vectors - 1][0][Columns] = tiles_below<T, Row, Vectors, false, Columns>;
        if constexpr (Vectors <= wide_vectors<T>)
            of[Row - 1][Vectors - 1][1][Columns] = tiles_below<T, Row, Vectors, true, Columns>;
    }
    constexpr Tiles() : of{} { add<Tile<T>::rows, most_vectors_of_tile<T>(Tile<T>::rows)>(); }
};
template <class T> constexpr Tiles<T> tiles{};

// Columns of b as panels of [k][column], the missing ones of the last vector 0. b_column is 1.
template <class T>
void pack_by_row(const T *b, std::ptrdiff_t b_row, std::size_t depth, std::size_t columns, T *packed) {
    while (columns >= panel_columns<T>) {
        const std::size_t group = columns < group_columns<T> ? columns : group_columns<T>;
        const std::size_t panels = group / panel_columns<T>, taken = panels * panel_columns<T>;
        pack_group<T>(b, b_row, depth, panels, packed, depth * panel_columns<T>);
        b += taken;
        packed += taken * depth;
        columns -= taken;
    }
    for (std::size_t j, k = 0; k < depth && columns > 0; ++k, b += b_row)
        for (j = 0; j < columns; j += width<T>, packed += width<T>)
            store(packed, j + width<T> <= columns ? load<vec<T>>(b + j) : load_first<vec<T>>(b + j, columns - j, T(0)));
}

// to[j, i] = from[i, j], the rows of `to` filled up with zeros to whole vectors; square blocks are transposed in registers.
// Written from the last vector of each row to the first and by increasing j, so rows of `to` may be shorter than whole
// vectors: what goes beyond one is overwritten by the next.
template <class T>
void transpose_copy(const T *from, std::ptrdiff_t from_row, std::size_t rows, std::size_t columns, T *to,
                    std::ptrdiff_t to_row) {
    for (std::size_t i = (rows - 1) / width<T> * width<T>;; i -= width<T>) {
        const std::size_t present = rows - i < width<T> ? rows - i : width<T>;
        const T *source = from + static_cast<std::ptrdiff_t>(i) * from_row;
        std::size_t j = 0;
        T *row = to + i;
        for (; j + width<T> <= columns; j += width<T>) {
            vec<T> block[width<T>];
#pragma GCC unroll 16
            for (std::size_t r = 0; r < width<T>; ++r)
                block[r] =
                    r < present ? load<vec<T>>(source + static_cast<std::ptrdiff_t>(r) * from_row + j) : vec<T>{};
            transpose(block);
#pragma GCC unroll 16
            for (std::size_t r = 0; r < width<T>; ++r, row += to_row) store(row, block[r]);
        }
        for (; j < columns; ++j, row += to_row)
            for (std::size_t r = 0; r < width<T>; ++r)
                row[r] = r < present
                             ? source[static_cast<std::ptrdiff_t>(r) * from_row + static_cast<std::ptrdiff_t>(j)]
                             : T(0);
        if (i == 0) return;
    }
}

// What is used next: a group of panels of b, a packed panel, or one of a b in place. Tiles ask for four lines of it now and then: 256
// bytes of a row, or a line of four rows or columns; always as often, since a branch mispredicted costs more.
template <class T> struct Stream {
    const T *from; // something readable where there is nothing to ask for
    std::ptrdiff_t stride = 0, line = 0,
                   asking = 0;         // from row to row, from line to line, and from one asking to the next
    std::size_t rows = 0, at_once = 0; // still to come, for each tile
    std::size_t askings = 1;           // of a tile at a time

    void begin(const T *first, std::ptrdiff_t row, std::size_t count, std::size_t tiles) {
        from = first;
        stride = row;
        rows = count;
        at_once = (count + tiles - 1) / tiles;
    }
    // A row each time, and more where few tiles have to hurry.
    void ask_by_row() {
        asking = stride;
        const std::size_t wanted = (at_once + most_at_once - 1) / most_at_once;
        askings = wanted < most_asked ? (wanted > 0 ? wanted : 1) : most_asked;
    }
    void after(std::size_t tiles) {
        const std::size_t now = rows < tiles * at_once ? rows : tiles * at_once;
        rows -= now;
        from += static_cast<std::ptrdiff_t>(now) * stride;
    }
};

// to[j, i] = from[i, j], and nothing beyond.
template <class T>
void transpose_matrix(const T *from, std::ptrdiff_t from_row, std::size_t rows, std::size_t columns, T *to,
                      std::ptrdiff_t to_row) {
    using V = vec<T>;
    constexpr std::ptrdiff_t lanes = width<T>;
    for (std::size_t i = 0; i < rows; i += width<T>, from += lanes * from_row, to += lanes) {
        const std::size_t height = rows - i < width<T> ? rows - i : width<T>;
        T *row = to;
        for (std::size_t j = 0; j < columns; j += width<T>, row += lanes * to_row) {
            const std::size_t present = columns - j < width<T> ? columns - j : width<T>;
            V block[width<T>];
#pragma GCC unroll 16
            for (std::size_t r = 0; r < width<T>; ++r) {
                const T *source = from + static_cast<std::ptrdiff_t>(r) * from_row + j;
                block[r] = r >= height           ? V{}
                           : present == width<T> ? load<V>(source)
                                                 : load_first<V>(source, present, T(0));
            }
            transpose(block);
#pragma GCC unroll 16
            for (std::size_t r = 0; r < width<T>; ++r) {
                T *target = row + static_cast<std::ptrdiff_t>(r) * to_row;
                if (r < present) height == width<T> ? store(target, block[r]) : store_first(target, block[r], height);
            }
        }
    }
}

// The same as pack_by_row where b_row is 1.
template <class T>
void pack_by_column(const T *b, std::ptrdiff_t b_column, std::size_t depth, std::size_t columns, T *packed) {
    for (std::size_t panel = 0; panel < columns; panel += panel_columns<T>, packed += panel_columns<T> * depth) {
        const std::size_t present = columns - panel < panel_columns<T> ? columns - panel : panel_columns<T>;
        transpose_copy(b + static_cast<std::ptrdiff_t>(panel) * b_column, b_column, present, depth, packed,
                       static_cast<std::ptrdiff_t>(panel_padded<T>(present)));
    }
}

// Rows cut into tiles of nearly equal height, at most so high.
struct RowTiles {
    std::size_t count, height, higher; // the first so many are one row higher

    RowTiles(std::size_t rows, std::size_t most)
        : count((rows + most - 1) / most), height(rows / count), higher(rows % count) {}
    std::size_t row(std::size_t tile) const { return tile * height + (tile < higher ? tile : higher); }
    // f(first row, rows, number, count) over tiles begin .. end - 1, up to `most` of equal height at once
    template <class F> PYNN_INLINE void each(std::size_t begin, std::size_t end, F f, std::size_t most) const {
        for (std::size_t t = begin, count; t < end; t += count) {
            const std::size_t left = (t < higher && higher < end ? higher : end) - t;
            count = left < most ? left : most;
            f(row(t), height + (t < higher), t, count);
        }
    }
};

// A chunk of a block's rows of a as [tile][k][row], what the micro-tiles read one after the other in one line. Up to a
// vector is written beyond it.
template <class T>
void pack_rows(const T *a, std::ptrdiff_t a_row, std::ptrdiff_t a_column, std::size_t depth, std::size_t rows,
               T *packed) {
    constexpr std::ptrdiff_t to_row = Tile<T>::rows;
    const RowTiles row_tiles(rows, Tile<T>::rows);
    const auto one = [&](std::size_t row, std::size_t height, std::size_t t, std::size_t) {
        const T *from = a + static_cast<std::ptrdiff_t>(row) * a_row;
        T *to = packed + t * Tile<T>::rows * depth;
        if (a_column == 1) {
            transpose_copy(from, a_row, height, depth, to, to_row);
            return;
        }
        for (std::size_t k = 0; k < depth; ++k, from += a_column, to += to_row)
            for (std::size_t r = 0; r < height; r += width<T>)
                store(to + r, row + r + width<T> <= rows ? load<vec<T>>(from + r)
                                                         : load_first<vec<T>>(from + r, rows - row - r, T(0)));
    };
    row_tiles.each(0, row_tiles.count, one, 1);
}

template <class T>
void pack_panels(const T *b, std::ptrdiff_t b_row, std::ptrdiff_t b_column, std::size_t depth, std::size_t columns,
                 T *packed) {
    if (b_column == 1)
        pack_by_row(b, b_row, depth, columns, packed);
    else
        pack_by_column(b, b_column, depth, columns, packed);
}

// One to four rows of a times a b read in place, whole rows of which go by as memory likes it: the sums of a strip of
// columns stay in the first-level cache, and Depth terms are added to each at a time.
template <class T, std::size_t Rows> void row_by_row(const ProductBlock<T> &block) {
    using V = vec<T>;
    constexpr std::size_t strip = 4096 / sizeof(T), group = 8 / Rows;
    for (std::size_t column = 0; column < block.columns; column += strip) {
        const std::size_t columns = block.columns - column < strip ? block.columns - column : strip;
        T sums[Rows][strip];
        // sums (Opening: zeros) plus Depth terms from k on
        auto add = [&]<std::size_t Depth, bool Opening>(std::size_t k) {
            V x[Rows][Depth + 1]; // Depth may be 0
            for (std::size_t i = 0; i < Rows; ++i)
                for (std::size_t d = 0; d < Depth; ++d)
                    x[i][d] = splat<V>(block.a[static_cast<std::ptrdiff_t>(i) * block.a_row +
                                               static_cast<std::ptrdiff_t>(k + d) * block.a_column]);
            const T *b = block.b + static_cast<std::ptrdiff_t>(k) * block.b_row + column;
            for (std::size_t j = 0; j < columns; j += width<T>, b += width<T>) {
                const bool whole = j + width<T> <= columns;
                V sum[Rows];
                for (std::size_t i = 0; i < Rows; ++i) sum[i] = Opening ? V{} : load<V>(&sums[i][j]);
#pragma GCC unroll 8
                for (std::size_t d = 0; d < Depth; ++d) {
                    const T *row = b + static_cast<std::ptrdiff_t>(d) * block.b_row;
                    const V terms = whole ? load<V>(row) : load_first<V>(row, columns - j, T(0));
                    for (std::size_t i = 0; i < Rows; ++i) sum[i] = fma(x[i][d], terms, sum[i]);
                }
                for (std::size_t i = 0; i < Rows; ++i) store(&sums[i][j], sum[i]);
            }
        };
        std::size_t start = 0;
        do { // at least once: depth 0 gives the bias
            const std::size_t end = block.depth - start < affine_chunk ? block.depth : start + affine_chunk;
            std::size_t k = start;
            if (k + group <= end)
                add.template operator()<group, true>(k), k += group;
            else
                add.template operator()<0, true>(k);
            for (; k + group <= end; k += group) add.template operator()<group, false>(k);
            for (; k < end; ++k) add.template operator()<1, false>(k);
            for (std::size_t i = 0; i < Rows; ++i) {
                T *c = block.c + static_cast<std::ptrdiff_t>(i) * block.c_row + column;
                for (std::size_t j = 0; j < columns; j += width<T>) {
                    const std::size_t lanes = columns - j < width<T> ? columns - j : width<T>;
                    V value = load<V>(&sums[i][j]);
                    if (start != 0) value = load_first<V>(c + j, lanes, T(0)) + value;
                    if (end == block.depth && block.bias != nullptr)
                        value = value + load_first<V>(block.bias + column + j, lanes, T(0));
                    store_first(c + j, value, lanes);
                }
            }
            start = end;
        } while (start < block.depth);
    }
}

// One row of a times so few columns of a b read in place that their sums stay in registers: b goes by once, in order. The last
// vector begins early, among columns of the one before.
constexpr std::size_t most_vectors_of_row = 8;
template <class T, std::size_t Vectors> void one_row(const ProductBlock<T> &block) {
    using V = vec<T>;
    const std::size_t last = block.columns - width<T>;
    const auto at = [last](std::size_t j)
                        __attribute__((always_inline)) { return j + 1 < Vectors ? j * width<T> : last; };
    const T *a = block.a, *b = block.b;
    V total[Vectors] = {};
    for (std::size_t start = 0; start < block.depth; start += affine_chunk) {
        const std::size_t depth = block.depth - start < affine_chunk ? block.depth - start : affine_chunk;
        V sum[Vectors] = {};
        for (std::size_t k = 0; k < depth; ++k, a += block.a_column, b += block.b_row) {
            const V x = splat<V>(*a);
#pragma GCC unroll 8
            for (std::size_t j = 0; j < Vectors; ++j) sum[j] = fma(x, load<V>(b + at(j)), sum[j]);
        }
#pragma GCC unroll 8
        for (std::size_t j = 0; j < Vectors; ++j) total[j] = start == 0 ? sum[j] : total[j] + sum[j];
    }
#pragma GCC unroll 8
    for (std::size_t j = 0; j < Vectors; ++j)
        store(block.c + at(j), block.bias == nullptr ? total[j] : total[j] + load<V>(block.bias + at(j)));
}
template <class T, std::size_t... I>
void one_row(const ProductBlock<T> &block, std::size_t vectors, std::index_sequence<I...>) {
    constexpr void (*functions[])(const ProductBlock<T> &) = {one_row<T, I + 1>...};
    functions[vectors - 1](block);
}

// Few rows of a times columns of b that lie each in a line: blocks are transposed in registers and used at once, since
// packing would cost more than the product. Groups vectors of columns at a time, so that the chains do not wait for each other.
template <class T, std::size_t Rows, std::size_t Groups> void few_rows(const ProductBlock<T> &block) {
    using V = vec<T>;
    constexpr std::size_t lanes = width<T>;
    for (std::size_t column = 0; column < block.columns; column += Groups * lanes) {
        const T *from[Groups][lanes]; // beyond the last column: that one again
        for (std::size_t j = 0; j < Groups * lanes; ++j) {
            const std::size_t at = column + j < block.columns ? column + j : block.columns - 1;
            from[j / lanes][j % lanes] = block.b + static_cast<std::ptrdiff_t>(at) * block.b_column;
        }
        V total[Rows][Groups] = {};
        const T *a = block.a;
        for (std::size_t start = 0; start < block.depth; start += affine_chunk) {
            const std::size_t end = block.depth - start < affine_chunk ? block.depth : start + affine_chunk;
            V sum[Rows][Groups] = {};
            for (std::size_t k = start; k < end; k += lanes) {
                const std::size_t present = end - k < lanes ? end - k : lanes;
#pragma GCC unroll 4
                for (std::size_t g = 0; g < Groups; ++g) {
                    V rows[lanes];
#pragma GCC unroll 16
                    for (std::size_t r = 0; r < lanes; ++r)
                        rows[r] =
                            present == lanes ? load<V>(from[g][r] + k) : load_first<V>(from[g][r] + k, present, T(0));
                    transpose(rows);
#pragma GCC unroll 16
                    for (std::size_t r = 0; r < lanes; ++r) {
                        if (r >= present) break;
                        const T *x = a + static_cast<std::ptrdiff_t>(k + r) * block.a_column;
#pragma GCC unroll 4
                        for (std::size_t i = 0; i < Rows; ++i)
                            sum[i][g] =
                                fma(splat<V>(x[static_cast<std::ptrdiff_t>(i) * block.a_row]), rows[r], sum[i][g]);
                    }
                }
            }
            for (std::size_t i = 0; i < Rows; ++i)
                for (std::size_t g = 0; g < Groups; ++g) total[i][g] = start == 0 ? sum[i][g] : total[i][g] + sum[i][g];
        }
        for (std::size_t g = 0; g < Groups && column + g * lanes < block.columns; ++g) {
            const std::size_t at = column + g * lanes,
                              present = block.columns - at < lanes ? block.columns - at : lanes;
            V bias{};
            if (block.bias != nullptr) bias = load_first<V>(block.bias + at, present, T(0));
            for (std::size_t i = 0; i < Rows; ++i)
                store_first(block.c + static_cast<std::ptrdiff_t>(i) * block.c_row + at,
                            block.bias != nullptr ? total[i][g] + bias : total[i][g], present);
        }
    }
}

template <class T> void activate(const ProductBlock<T> &block, std::size_t begin, std::size_t end) {
    if (block.activation == nullptr) return;
    T *y = block.c + static_cast<std::ptrdiff_t>(begin) * block.c_row;
    const auto columns = static_cast<std::ptrdiff_t>(block.columns);
    // In one call where it can be, as one for a short row costs as much as its elements.
    if (block.c_row == columns) return block.activation(y, y, (end - begin) * block.columns);
    for (std::size_t i = begin; i < end; ++i, y += block.c_row) block.activation(y, y, block.columns);
}

// Chunk by chunk of k, the block's rows are taken in ranges whose part of a stays in the second-level cache; a range goes
// through the columns group by group. The first one lays b out for the others: rows by its first tile, columns before it.
template <class T> class BlockProduct {
  public:
    explicit BlockProduct(const ProductBlock<T> &block)
        : block_(block), transposed_(block.a_column != 1 || block.packed_a != nullptr),
          // Where a whole vector would read past the row, and before it too, b is packed as well.
          pack_(block.packed == nullptr && (block.pack || block.columns < width<T>)),
          in_panels_(pack_ || block.packed != nullptr), packs_in_tiles_(pack_ && block.b_column == 1),
          few_(!in_panels_ && !transposed_ && block.rows < Tile<T>::rows),
          panel_((few_ ? vectors_of_tile<T>(block.rows) : Tile<T>::vectors) * width<T>),
          group_(pack_ ? group_columns<T> : panel_), tiles_(block.rows, Tile<T>::rows),
          ranges_(row_ranges(block.rows, block_rows<T>)) {}

    void run() {
        Place place{};
        RowsAhead rows{};
        do { // the first chunk always: depth 0 gives the bias
            if (place.column == 0) rows = rows_after(place);
            const std::size_t columns = group_at(place.column);
            const std::size_t whole = packs_in_tiles_ ? columns / panel_ * panel_ : 0;
            if (pack_ && place.range == 0 && whole < columns)
                pack_panels(source(place) + static_cast<std::ptrdiff_t>(whole) * block_.b_column, block_.b_row,
                            block_.b_column, depth_at(place.start), columns - whole,
                            slot(place) + whole * depth_at(place.start));
            Place next = place;
            next.column += columns;
            if (next.column == block_.columns) next = range_after(place);
            const std::size_t tiles = (columns + panel_ - 1) / panel_ * (end_of(place.range) - begin_of(place.range));
            Stream<T> stream = stream_of(next, tiles);
            for (std::size_t done = 0, now; done < columns; done += now) {
                now = columns - done < panel_ || !in_panels_ ? columns - done : panel_;
                one_panel(place, done, now, stream, rows);
            }
            if (next.column == 0 && place.start + affine_chunk >= block_.depth) // while the range's results are near
                activate(block_, tiles_.row(begin_of(place.range)), tiles_.row(end_of(place.range)));
            place = next;
        } while (place.start == 0 || place.start < block_.depth);
        if (block_.past_cache) finish_past_cache();
    }

  private:
    struct Place {
        std::size_t start, range, column;
    };

    const ProductBlock<T> &block_;
    const bool transposed_, pack_, in_panels_, packs_in_tiles_, few_;
    const std::size_t panel_, group_;
    const RowTiles tiles_;
    const std::size_t ranges_;

    std::size_t depth_at(std::size_t start) const {
        return block_.depth - start < affine_chunk ? block_.depth - start : affine_chunk;
    }
    std::size_t begin_of(std::size_t range) const { return range * tiles_.count / ranges_; }
    std::size_t end_of(std::size_t range) const { return begin_of(range + 1); }
    Place range_after(Place place) const {
        const bool last = place.range + 1 == ranges_;
        return {last ? place.start + affine_chunk : place.start, last ? 0 : place.range + 1, 0};
    }
    std::size_t group_at(std::size_t column) const {
        const std::size_t left = block_.columns - column;
        const bool widened = !few_ && !in_panels_ && block_.packed_a == nullptr;
        return left <= group_ || (widened && left <= panel_ + width<T>) ? left : group_;
    }
    const T *source(Place place) const {
        return block_.b + static_cast<std::ptrdiff_t>(place.start) * block_.b_row +
               static_cast<std::ptrdiff_t>(place.column) * block_.b_column;
    }
    T *slot(Place place) const {
        const std::size_t number = ranges_ == 1 ? 0 : place.column / group_;
        return block_.workspace + number * group_columns<T> * affine_chunk;
    }
    // From which column of its group's slot on a panel lies. One that no other range reads takes the place of the panel before,
    // which the first-level cache still has.
    std::size_t place_of(std::size_t done, std::size_t columns) const {
        return packs_in_tiles_ && ranges_ == 1 && columns == panel_ ? 0 : done;
    }
    // Where the panel of so many columns, `done` columns from the group's first, is read.
    const T *panel_of(Place place, std::size_t done, std::size_t columns) const {
        if (pack_) return slot(place) + place_of(done, columns) * depth_at(place.start);
        if (block_.packed == nullptr) return source(place) + done;
        return block_.packed + (place.column + done) * block_.depth + place.start * panel_padded<T>(columns);
    }

    // What so many tiles read ahead.
    Stream<T> stream_of(Place place, std::size_t tiles) const {
        Stream<T> stream{block_.a};
        if (place.start >= block_.depth) return stream;
        const std::size_t depth = depth_at(place.start), columns = group_at(place.column);
        stream.line = in_panels_ ? static_cast<std::ptrdiff_t>(line_elements<T>) : block_.b_row;
        if (!in_panels_) { // a panel's last line, as the panel before had the others
            stream.begin(source(place) + panel_ - 1, block_.b_row, depth, tiles);
            stream.asking = 4 * block_.b_row;
            return stream;
        }
        if (block_.packed != nullptr || place.range > 0) {
            constexpr std::size_t row = row_bytes / sizeof(T);
            const std::size_t elements = depth * (columns < panel_ ? panel_padded<T>(columns) : columns);
            stream.begin(panel_of(place, 0, columns), static_cast<std::ptrdiff_t>(row), (elements + row - 1) / row,
                         tiles);
            stream.ask_by_row();
            return stream;
        }
        if (packs_in_tiles_) {
            stream.begin(source(place), block_.b_row, depth, tiles);
            stream.ask_by_row();
        } else { // a row is a line of each column
            stream.line = block_.b_column;
            stream.begin(source(place), static_cast<std::ptrdiff_t>(line_elements<T>),
                         (depth + line_elements<T> - 1) / line_elements<T>, tiles);
            stream.asking = 4 * stream.line;
            stream.askings = (columns + 4 * most_at_once - 1) / (4 * most_at_once);
        }
        return stream;
    }

    // Lines of a packed a that tiles ask for now and then: those of the next range, where they come from memory. From a
    // third-level cache they come in time unasked.
    struct RowsAhead {
        const T *from;
        std::size_t lines, at_once; // still to come, and in one asking

        void after(std::size_t asked) {
            from += asked * line_elements<T>;
            lines -= asked;
        }
    };
    std::size_t askings(Place place) const { return (depth_at(place.start) + ask_interval - 1) / ask_interval; }
    const T *packed_rows(Place place, std::size_t tile) const {
        return block_.packed_a + place.start / affine_chunk * block_.a_chunk +
               tile * Tile<T>::rows * depth_at(place.start);
    }
    RowsAhead rows_after(Place place) const {
        const Place next = range_after(place);
        if (block_.packed_a == nullptr || next.start >= block_.depth ||
            block_.rows * block_.depth * sizeof(T) <= kept_by_caches)
            return {};
        const T *from = packed_rows(next, begin_of(next.range)), *end = packed_rows(next, end_of(next.range));
        const std::size_t lines = static_cast<std::size_t>(end - from) / line_elements<T>;
        const std::size_t tiles = end_of(place.range) - begin_of(place.range);
        const std::size_t times = (block_.columns + panel_ - 1) / panel_ * tiles * askings(place);
        return {from, lines, (lines + times - 1) / times};
    }

    void one_panel(Place place, std::size_t done, std::size_t columns, Stream<T> &stream, RowsAhead &rows_ahead) const {
        const std::size_t depth = depth_at(place.start), column = place.column + done;
        const std::size_t vectors = (columns + width<T> - 1) / width<T>;
        const bool last = place.start + depth == block_.depth;
        const T *a = block_.a + static_cast<std::ptrdiff_t>(place.start) * block_.a_column;
        TileWork<T> work;
        work.depth = depth;
        work.lanes = columns - (vectors - 1) * width<T>;
        work.shift = in_panels_ ? 0 : width<T> - work.lanes;
        work.first = place.start == 0;
        work.past_cache = block_.past_cache && columns == panel_;
        work.bias = last && block_.bias != nullptr ? block_.bias + column : nullptr;
        work.c_row = block_.c_row;
        work.a_stride = block_.packed_a != nullptr ? static_cast<std::ptrdiff_t>(Tile<T>::rows)
                        : transposed_              ? block_.a_column
                                                   : block_.a_row;
        work.b = panel_of(place, done, columns);
        work.b_stride = in_panels_ ? static_cast<std::ptrdiff_t>(panel_padded<T>(columns)) : block_.b_row;
        work.ahead_line = stream.line;
        work.ahead_stride = stream.asking;
        work.ahead_rows = stream.askings;
        work.ahead_tile = static_cast<std::ptrdiff_t>(stream.at_once) * stream.stride;
        const bool narrow = Tile<T>::halves && work.lanes <= width<T> / 2;
        const bool packs = packs_in_tiles_ && place.range == 0 && columns == panel_;
        work.panel = packs ? slot(place) + place_of(done, columns) * depth : nullptr;
        auto below = [&](std::size_t row, std::size_t rows, std::size_t t,
                         std::size_t count) __attribute__((always_inline)) {
            const std::ptrdiff_t i = static_cast<std::ptrdiff_t>(row);
            work.tiles = count;
            work.a = block_.packed_a == nullptr ? a + i * block_.a_row : packed_rows(place, t);
            work.a_tile = block_.packed_a != nullptr ? static_cast<std::ptrdiff_t>(Tile<T>::rows * depth)
                                                     : static_cast<std::ptrdiff_t>(rows) * block_.a_row;
            work.c = block_.c + i * block_.c_row + column;
            work.ahead = stream.from;
            const std::size_t asked = rows_ahead.at_once * askings(place); // lines, by each tile
            work.a_ahead = rows_ahead.from;
            work.a_ahead_lines = rows_ahead.lines < asked * count ? 0 : rows_ahead.at_once;
            const auto &ways = tiles<T>.of[rows - 1][vectors - 1][transposed_];
            if (packs && t == 0) {
                TileWork<T> first = work;
                first.tiles = 1;
                first.b = source(place) + done;
                first.b_stride = block_.b_row;
                ways[packing](first);
                work.tiles = count - 1;
                work.a += work.a_tile;
                work.c += static_cast<std::ptrdiff_t>(rows) * work.c_row;
                work.ahead += work.ahead_tile;
                work.a_ahead += asked * line_elements<T>;
            }
            if (work.tiles > 0) ways[narrow ? half : plain](work);
            stream.after(count);
            if (work.a_ahead_lines > 0) rows_ahead.after(asked * count);
        };
        if (few_ || vectors <= Tile<T>::vectors) {
            tiles_.each(begin_of(place.range), end_of(place.range), below, most_at_once);
        } else if (place.range == 0) { // all rows at once
            const RowTiles lower(block_.rows, wide_rows<T>);
            lower.each(0, lower.count, below, most_at_once);
        }
    }
};

template <class T> void product_block(const ProductBlock<T> &block) {
    if (block.packed == nullptr && block.rows <= most_rows_in_place && (block.b_column == 1 || block.b_row == 1)) {
        constexpr void (*functions[2][most_rows_in_place])(const ProductBlock<T> &) = {
            {few_rows<T, 1, 2>, few_rows<T, 2, 2>, few_rows<T, 3, 1>, few_rows<T, 4, 1>},
            {row_by_row<T, 1>, row_by_row<T, 2>, row_by_row<T, 3>, row_by_row<T, 4>}};
        const std::size_t vectors = (block.columns + width<T> - 1) / width<T>;
        if (block.rows == 1 && block.b_column == 1 && block.columns >= width<T> && vectors <= most_vectors_of_row)
            one_row(block, vectors, std::make_index_sequence<most_vectors_of_row>());
        else
            functions[block.b_column == 1][block.rows - 1](block);
        activate(block, 0, block.rows);
        return;
    }
    BlockProduct<T>(block).run();
}

// The bias gradient: the same rule with ones in place of x. Vectors columns at a time, as memory is read in lines.
template <class T, std::size_t Vectors>
void sums_of_columns(const T *x, std::ptrdiff_t x_row, std::size_t rows, std::size_t lanes, T *sums) {
    using V = vec<T>;
    V total[Vectors] = {};
    for (std::size_t start = 0; start < rows; start += affine_chunk) {
        const std::size_t end = rows - start < affine_chunk ? rows : start + affine_chunk;
        V sum[Vectors] = {};
        for (std::size_t i = start; i < end; ++i, x += x_row)
#pragma GCC unroll 8
            for (std::size_t j = 0; j < Vectors; ++j)
                if (Vectors > 1 || lanes == width<T>)
                    sum[j] = sum[j] + load<V>(x + j * width<T>);
                else
                    sum[j] = sum[j] + load_first<V>(x, lanes, T(0));
        for (std::size_t j = 0; j < Vectors; ++j) total[j] = start == 0 ? sum[j] : total[j] + sum[j];
    }
    for (std::size_t j = 0; j < Vectors; ++j) store_first(sums + j * width<T>, total[j], lanes);
}

template <class T> void column_sums(const T *x, std::ptrdiff_t x_row, std::size_t rows, std::size_t columns, T *sums) {
    constexpr std::size_t vectors = 8;
    std::size_t j = 0;
    for (; j + vectors * width<T> <= columns; j += vectors * width<T>)
        sums_of_columns<T, vectors>(x + j, x_row, rows, width<T>, sums + j);
    for (; j < columns; j += width<T>)
        sums_of_columns<T, 1>(x + j, x_row, rows, columns - j < width<T> ? columns - j : width<T>, sums + j);
}

} // namespace
} // namespace pynn::PYNN_ISA
