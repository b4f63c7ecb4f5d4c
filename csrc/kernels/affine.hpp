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
template <class T>
constexpr std::size_t block_columns =
    (std::size_t(128) << 10) / (affine_chunk * sizeof(T)) / panel_columns<T> * panel_columns<T>;

// The columns that a panel of so many takes when packed.
template <class T> constexpr std::size_t panel_padded(std::size_t columns) {
    return columns >= panel_columns<T> ? panel_columns<T> : (columns + width<T> - 1) / width<T> * width<T>;
}

// Memory that will be read soon: rows of so many cache lines. A tile asks for some rows now and then, as it goes.
struct Ahead {
    const char *row = nullptr;
    std::ptrdiff_t stride = 0; // bytes
    std::size_t lines = 0, rows_at_once = 0;
};
constexpr std::size_t ahead_interval = 16; // of k, from one asking to the next
constexpr std::size_t askings(std::size_t depth) { return (depth + ahead_interval - 1) / ahead_interval; }

template <class T> struct TileWork {
    Ahead ahead;
    std::size_t depth; // at most affine_chunk
    const T *a;
    std::ptrdiff_t a_stride; // of rows, or of columns where rows have unit stride
    const T *b;
    std::ptrdiff_t b_stride;
    T *panel; // where a packing tile lays out what it reads of b, for the tiles below it
    T *c;
    std::ptrdiff_t c_row;
    const T *bias;     // nullptr before the last chunk
    bool first;        // the first chunk: c is written, else added to
    std::size_t lanes; // of the last vector that belong to c; b read in place gives the last lanes, packed b the first
    std::size_t shift; // by how many columns the last vector of b begins early
};

// Transposed: a has unit stride along its rows; otherwise along its columns.
template <class T, std::size_t Rows, std::size_t Vectors, bool Transposed, bool Packing = false>
void tile(const TileWork<T> &work) {
    using V = vec<T>;
    V sum[Rows][Vectors];
#pragma GCC unroll 16
    for (std::size_t i = 0; i < Rows; ++i)
#pragma GCC unroll 8
        for (std::size_t j = 0; j < Vectors; ++j) sum[i][j] = V{};
    // Rows are addressed from every third one, so that the pointers stay in registers.
    constexpr std::size_t pointers = (Rows + 2) / 3;
    const T *a[pointers], *b = work.b;
    T *panel = work.panel;
    const std::ptrdiff_t a_stride = work.a_stride, b_stride = work.b_stride;
    const std::ptrdiff_t last = static_cast<std::ptrdiff_t>((Vectors - 1) * width<T> - work.shift);
    for (std::size_t i = 0; i < Rows; ++i) __builtin_prefetch(work.c + static_cast<std::ptrdiff_t>(i) * work.c_row, 1);
    for (std::size_t p = 0; p < pointers; ++p)
        a[p] = work.a + static_cast<std::ptrdiff_t>(3 * p) * (Transposed ? 1 : a_stride);
    Ahead ahead = work.ahead;
    for (std::size_t left = work.depth; left > 0;) {
        for (std::size_t r = 0; r < ahead.rows_at_once; ++r, ahead.row += ahead.stride)
            for (std::size_t j = 0; j < ahead.lines; ++j) __builtin_prefetch(ahead.row + 64 * j, 0, 2);
        const std::size_t now = left < ahead_interval ? left : ahead_interval;
        left -= now;
        for (std::size_t k = now; k > 0; --k) {
            V column[Vectors];
#pragma GCC unroll 8
            for (std::size_t j = 0; j + 1 < Vectors; ++j) column[j] = load<V>(b + j * width<T>);
            column[Vectors - 1] = load<V>(b + last);
            if constexpr (Packing) {
#pragma GCC unroll 8
                for (std::size_t j = 0; j < Vectors; ++j) store(panel + j * width<T>, column[j]);
                panel += Vectors * width<T>;
            }
            if constexpr (Vectors > Tile<T>::vectors) // few rows wait for memory, and b's rows may lie pages apart
#pragma GCC unroll 4
                for (std::size_t j = 0; j < Vectors; j += 64 / sizeof(V))
                    __builtin_prefetch(b + 16 * b_stride + j * width<T>);
#pragma GCC unroll 16
            for (std::size_t i = 0; i < Rows; ++i) {
                V x = splat<V>(a[i / 3][static_cast<std::ptrdiff_t>(i % 3) * (Transposed ? 1 : a_stride)]);
#pragma GCC unroll 8
                for (std::size_t j = 0; j < Vectors; ++j) sum[i][j] = fma(x, column[j], sum[i][j]);
            }
#pragma GCC unroll 5
            for (std::size_t p = 0; p < pointers; ++p) a[p] += Transposed ? a_stride : 1;
            b += b_stride;
        }
    }
    const bool first = work.first, biased = work.bias != nullptr;
#pragma GCC unroll 8
    for (std::size_t j = 0; j < Vectors; ++j) {
        // Of b read in place a partial vector begins early, among columns of the vector before, and they stay as they are.
        const bool whole = j + 1 < Vectors || work.lanes == width<T>, early = work.shift != 0;
        const std::ptrdiff_t at = j + 1 < Vectors ? static_cast<std::ptrdiff_t>(j * width<T>) : last;
        T *c = work.c + at;
        V bias{};
        if (whole || early) {
            if (biased) bias = load<V>(work.bias + at);
#pragma GCC unroll 16
            for (std::size_t i = 0; i < Rows; ++i, c += work.c_row) {
                V value = sum[i][j];
                if (!first) value = load<V>(c) + value;
                if (biased) value = value + bias;
                store(c, whole ? value : select(from_lane<V>(work.shift), value, load<V>(c)));
            }
        } else {
            if (biased) bias = load_first<V>(work.bias + at, work.lanes, T(0));
#pragma GCC unroll 16
            for (std::size_t i = 0; i < Rows; ++i, c += work.c_row) {
                V value = sum[i][j];
                if (!first) value = load_first<V>(c, work.lanes, T(0)) + value;
                store_first(c, biased ? value + bias : value, work.lanes);
            }
        }
    }
}

template <class T> using TileFunction = void (*)(const TileWork<T> &);

// Few rows are made up for by more vectors, where b is read in place: enough chains to keep the fma units busy. One and
// two rows go by row_by_row then.
constexpr std::size_t most_vectors = 8;
template <class T> constexpr std::size_t vectors_of_tile(std::size_t rows) {
    const std::size_t chains = Tile<T>::rows * Tile<T>::vectors, fit = chains / (rows + 1);
    return rows <= 2 || fit <= Tile<T>::vectors ? Tile<T>::vectors : fit < most_vectors ? fit : most_vectors;
}

template <class T> struct Tiles {
    TileFunction<T> of[Tile<T>::rows][most_vectors][2], packing[Tile<T>::rows][2];

    template <std::size_t Row, std::size_t Vectors> constexpr void add() {
        if constexpr (Vectors == Tile<T>::vectors) {
            packing[Row - 1][0] = tile<T, Row, Vectors, false, true>;
            packing[Row - 1][1] = tile<T, Row, Vectors, true, true>;
        }
        of[Row - 1][Vectors - 1][0] = tile<T, Row, Vectors, false>;
        if constexpr (Vectors <= Tile<T>::vectors) of[Row - 1][Vectors - 1][1] = tile<T, Row, Vectors, true>;
        if constexpr (Vectors > 1)
            add<Row, Vectors - 1>();
        else if constexpr (Row > 1)
            add<Row - 1, vectors_of_tile<T>(Row - 1)>();
    }
    constexpr Tiles() : of{}, packing{} { add<Tile<T>::rows, vectors_of_tile<T>(Tile<T>::rows)>(); }
};
template <class T> constexpr Tiles<T> tiles{};

// Columns of b as panels of [k][column], the missing ones of the last vector 0. b_column is 1. Panel by panel: what is
// written lies in a line, and what is read comes from the second-level cache as it was asked for.
template <class T>
void pack_by_row(const T *b, std::ptrdiff_t b_row, std::size_t depth, std::size_t columns, T *packed) {
    constexpr std::size_t panel = panel_columns<T>, ahead = 8;
    for (; columns >= panel; columns -= panel, b += panel) {
        const T *from = b;
        for (std::size_t k = 0; k < depth; ++k, from += b_row, packed += panel) {
            __builtin_prefetch(from + static_cast<std::ptrdiff_t>(ahead) * b_row);
#pragma GCC unroll 8
            for (std::size_t j = 0; j < panel; j += width<T>) store(packed + j, load<vec<T>>(from + j));
        }
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

// f(first row, rows, number) over tiles of nearly equal height
template <class T, class F> PYNN_INLINE void for_row_tiles(std::size_t rows, F f) {
    const std::size_t count = (rows + Tile<T>::rows - 1) / Tile<T>::rows;
    std::size_t row = 0;
    for (std::size_t t = 0; t < count; ++t) {
        const std::size_t height = (rows - row + count - t - 1) / (count - t);
        f(row, height, t);
        row += height;
    }
}

// A chunk of a block's rows of a as [tile][k][row], what the micro-tiles read one after the other in one line. Up to a
// vector is written beyond it.
template <class T>
void pack_rows(const T *a, std::ptrdiff_t a_row, std::ptrdiff_t a_column, std::size_t depth, std::size_t rows,
               T *packed) {
    constexpr std::ptrdiff_t to_row = Tile<T>::rows;
    for_row_tiles<T>(rows, [&](std::size_t row, std::size_t height, std::size_t t) {
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
    });
}

template <class T>
void pack_panels(const T *b, std::ptrdiff_t b_row, std::ptrdiff_t b_column, std::size_t depth, std::size_t columns,
                 T *packed) {
    if (b_column == 1)
        pack_by_row(b, b_row, depth, columns, packed);
    else
        pack_by_column(b, b_column, depth, columns, packed);
}

// A chunk of one panel of b.
template <class T> constexpr std::size_t workspace_size = panel_columns<T> * affine_chunk;

// One or two rows of a times a b read in place, whole rows of which go by as memory likes it: the sums of a strip of
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

template <class T> void product_block(const ProductBlock<T> &block) {
    if (block.packed == nullptr && block.b_column == 1 && block.rows <= 2) {
        block.rows == 1 ? row_by_row<T, 1>(block) : row_by_row<T, 2>(block);
        return;
    }
    if (block.packed == nullptr && block.b_column != 1 && block.b_row == 1 && block.rows <= 4) {
        constexpr void (*functions[])(const ProductBlock<T> &) = {few_rows<T, 1, 2>, few_rows<T, 2, 2>,
                                                                  few_rows<T, 3, 1>, few_rows<T, 4, 1>};
        functions[block.rows - 1](block);
        return;
    }
    const bool transposed = block.a_column != 1 || block.packed_a != nullptr;
    const std::size_t row_tiles = (block.rows + Tile<T>::rows - 1) / Tile<T>::rows;
    // Where a whole vector would read past the row, and before it too, b is packed as well.
    const bool pack = block.packed == nullptr && (block.pack || block.columns < width<T>);
    const bool in_panels = pack || block.packed != nullptr;
    const std::size_t vectors_fit =
        !in_panels && !transposed && block.rows < Tile<T>::rows ? vectors_of_tile<T>(block.rows) : Tile<T>::vectors;
    const std::size_t panel = vectors_fit * width<T>;
    // What the tiles of a panel ask for: the next panel, whose place in b is this.
    auto ahead_of = [&](std::size_t start, std::size_t column, std::size_t depth) -> Ahead {
        if (!in_panels || start >= block.depth) return {};
        const std::size_t left = block.depth - start, k = left < affine_chunk ? left : affine_chunk;
        const std::size_t columns = block.columns - column < panel ? block.columns - column : panel;
        const T *from = block.b + static_cast<std::ptrdiff_t>(start) * block.b_row +
                        static_cast<std::ptrdiff_t>(column) * block.b_column;
        std::ptrdiff_t stride = block.b_row;
        std::size_t rows = k, length = columns;
        if (block.packed != nullptr) {
            from = block.packed + column * block.depth + start * panel_padded<T>(columns);
            stride = static_cast<std::ptrdiff_t>(panel_padded<T>(columns));
        } else if (block.b_column != 1) { // its columns lie each in a line
            stride = block.b_column;
            rows = columns, length = k;
        }
        const std::size_t times = row_tiles * askings(depth);
        return {reinterpret_cast<const char *>(from), stride * static_cast<std::ptrdiff_t>(sizeof(T)),
                (length * sizeof(T) + 63) / 64, times == 0 ? 0 : (rows + times - 1) / times};
    };
    std::size_t start = 0;
    do { // at least once: depth 0 gives the bias
        const std::size_t depth = block.depth - start < affine_chunk ? block.depth - start : affine_chunk;
        const bool last = start + depth == block.depth;
        const T *a = block.a + static_cast<std::ptrdiff_t>(start) * block.a_column;
        const T *b = block.b + static_cast<std::ptrdiff_t>(start) * block.b_row;
        const T *packed_a = block.packed_a + start / affine_chunk * block.a_chunk;
        for (std::size_t column = 0; column < block.columns; column += panel) {
            const std::size_t columns = block.columns - column < panel ? block.columns - column : panel;
            const std::size_t vectors = (columns + width<T> - 1) / width<T>;
            const std::size_t padded = panel_padded<T>(columns);
            const T *source = b + static_cast<std::ptrdiff_t>(column) * block.b_column;
            // Rows of a whole panel are laid out by the first tile as it reads them.
            const bool packing = pack && block.b_column == 1 && columns == panel;
            if (pack && !packing) pack_panels(source, block.b_row, block.b_column, depth, columns, block.workspace);
            TileWork<T> work;
            work.depth = depth;
            work.lanes = columns - (vectors - 1) * width<T>;
            work.shift = in_panels ? 0 : width<T> - work.lanes;
            work.first = start == 0;
            work.bias = last && block.bias != nullptr ? block.bias + column : nullptr;
            work.c_row = block.c_row;
            work.panel = block.workspace;
            work.a_stride = block.packed_a != nullptr ? static_cast<std::ptrdiff_t>(Tile<T>::rows)
                            : transposed              ? block.a_column
                                                      : block.a_row;
            work.ahead = column + panel < block.columns ? ahead_of(start, column + panel, depth)
                                                        : ahead_of(start + depth, 0, depth);
            const std::ptrdiff_t asked =
                work.ahead.stride * static_cast<std::ptrdiff_t>(work.ahead.rows_at_once * askings(depth));
            auto run = [&](std::size_t row, std::size_t height, std::size_t t) __attribute__((always_inline)) {
                const std::ptrdiff_t i = static_cast<std::ptrdiff_t>(row);
                work.a = block.packed_a != nullptr ? packed_a + t * Tile<T>::rows * depth : a + i * block.a_row;
                work.c = block.c + i * block.c_row + column;
                const bool from_source = t == 0 && packing;
                work.b = from_source               ? source
                         : pack                    ? block.workspace
                         : block.packed != nullptr ? block.packed + column * block.depth + start * padded
                                                   : source;
                work.b_stride = in_panels && !from_source ? static_cast<std::ptrdiff_t>(padded) : block.b_row;
                if (from_source && row_tiles > 1)
                    tiles<T>.packing[height - 1][transposed](work);
                else
                    tiles<T>.of[height - 1][vectors - 1][transposed](work);
                work.ahead.row += asked;
            };
            for_row_tiles<T>(block.rows, run);
        }
        start += depth;
    } while (start < block.depth);
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
