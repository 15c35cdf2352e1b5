// The kernels that kernels.py launches, each beside a plain version in NumPy's terms. One thread computes one entry of
// the result and writes nothing else: no shared memory, no atomics, so the same source compiled as C++ and run in a
// loop gives the same numbers, and every sum has one order. Arrays are contiguous, images are (N, H, W, C).

typedef REAL real;  // float or double: -DREAL=...
typedef unsigned int word;

#define THREAD (int)(blockIdx.x * blockDim.x + threadIdx.x)


// ==== bfloat16: the upper half of a float, rounded to nearest, ties to even ====

__device__ unsigned short bfloat16(float x)
{
    if (x != x) return 0x7fc0;  // a NaN stays one: rounding could carry it into infinity
    word bits = __float_as_uint(x);
    return (unsigned short)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

extern "C" __global__ void to_bfloat16(const real* x, unsigned short* y, int count)
{
    int i = THREAD;
    if (i < count) y[i] = bfloat16((float)x[i]);
}


// ==== im2col: conv.py's _windows and _sum_windows, with the padding in the same pass ====

struct Convolution { int H, W, C, OH, OW, KH, KW, stride, padding; };

// Entry i of the windows (N, OH, OW, KH, KW, C).
__device__ real window_entry(const real* image, int i, Convolution s)
{
    int c = i % s.C;   i /= s.C;
    int kx = i % s.KW; i /= s.KW;
    int ky = i % s.KH; i /= s.KH;
    int x = i % s.OW * s.stride + kx - s.padding; i /= s.OW;
    int y = i % s.OH * s.stride + ky - s.padding; i /= s.OH;
    bool inside = 0 <= y && y < s.H && 0 <= x && x < s.W;
    return inside ? image[((i * s.H + y) * s.W + x) * s.C + c] : 0;
}

extern "C" __global__ void windows(const real* image, real* columns, int count, int H, int W, int C,
                                   int OH, int OW, int KH, int KW, int stride, int padding)
{
    Convolution shape = {H, W, C, OH, OW, KH, KW, stride, padding};
    int i = THREAD;
    if (i < count) columns[i] = window_entry(image, i, shape);
}

extern "C" __global__ void windows_bfloat16(const real* image, unsigned short* columns, int count, int H, int W, int C,
                                            int OH, int OW, int KH, int KW, int stride, int padding)
{
    Convolution shape = {H, W, C, OH, OW, KH, KW, stride, padding};
    int i = THREAD;
    if (i < count) columns[i] = bfloat16((float)window_entry(image, i, shape));
}

// The transpose of `windows`: a thread for each entry of the image gathers it from all the windows that hold it.
extern "C" __global__ void sum_windows(const real* columns, real* image, int count, int H, int W, int C,
                                       int OH, int OW, int KH, int KW, int stride, int padding)
{
    int i = THREAD;
    if (i >= count) return;
    int c = i % C, x = i / C % W + padding, y = i / C / W % H + padding, n = i / C / W / H;
    real total = 0;
    for (int ky = 0; ky < KH; ky++) {
        int oy = y - ky;
        if (oy < 0 || oy % stride || oy / stride >= OH) continue;
        for (int kx = 0; kx < KW; kx++) {
            int ox = x - kx;
            if (ox < 0 || ox % stride || ox / stride >= OW) continue;
            total += columns[((((n * OH + oy / stride) * OW + ox / stride) * KH + ky) * KW + kx) * C + c];
        }
    }
    image[i] = total;
}


// ==== group norm, with silu or without ====
//
// Sums over a group are made in two steps, a row of W pixels and then the H rows, so that there is work for every core.

__device__ real sigmoid(real z) { return (real)0.5 * tanh((real)0.5 * z) + (real)0.5; }

__device__ real silu_slope(real z)
{
    real s = sigmoid(z);
    return s + z * s * (1 - s);
}

// For each (n, h, c): the mean over a row of W pixels, and the sum of squares around it.
extern "C" __global__ void row_moments(const real* x, real* means, real* squares, int count, int W, int C)
{
    int i = THREAD;
    if (i >= count) return;
    const real* row = x + i / C * W * C + i % C;
    real sum = 0, square = 0;
    for (int w = 0; w < W; w++) sum += row[w * C];
    real mean = sum / W;
    for (int w = 0; w < W; w++) square += (row[w * C] - mean) * (row[w * C] - mean);
    means[i] = mean;
    squares[i] = square;
}

// For each (n, group): the mean, and one over the standard deviation. The squares around the rows' means, and the rows'
// means around the group's, add up to the squares around the group's mean (Chan et al. 1983): nothing cancels.
extern "C" __global__ void group_moments(const real* means, const real* squares, real* mean, real* inverse_std, int count,
                                         int H, int W, int C, int groups, real epsilon)
{
    int i = THREAD;
    if (i >= count) return;
    int width = C / groups, first = i / groups * H * C + i % groups * width;
    real sum = 0, square = 0;
    for (int h = 0; h < H; h++)
        for (int c = 0; c < width; c++) sum += means[first + h * C + c];
    real average = sum / (H * width);
    for (int h = 0; h < H; h++)
        for (int c = 0; c < width; c++) {
            real apart = means[first + h * C + c] - average;
            square += squares[first + h * C + c] + W * apart * apart;
        }
    real variance = square / (H * W * width);
    mean[i] = average;
    inverse_std[i] = 1 / sqrt(variance + epsilon) + 0 * variance; // NaN where the variance has overflowed, and not 0
}

// y = z or silu(z), for z = (x - mean) / std * weight + bias.
extern "C" __global__ void normalise(const real* x, const real* mean, const real* inverse_std, const real* weight,
                                     const real* bias, real* y, int count, int pixels, int C, int groups, int silu)
{
    int i = THREAD;
    if (i >= count) return;
    int c = i % C, group = i / (pixels * C) * groups + c / (C / groups);
    real z = (x[i] - mean[group]) * inverse_std[group] * weight[c] + bias[c];
    y[i] = silu ? z * sigmoid(z) : z;
}

// For each (n, h, c), over a row of W pixels: the sum of the gradient of z, and of it times (x - mean) / std.
extern "C" __global__ void row_gradients(const real* g, const real* x, const real* mean, const real* inverse_std,
                                         const real* weight, const real* bias, real* sums, real* products, int count,
                                         int H, int W, int C, int groups, int silu)
{
    int i = THREAD;
    if (i >= count) return;
    int c = i % C, group = i / (H * C) * groups + c / (C / groups), first = i / C * W * C + c;
    real sum = 0, product = 0;
    for (int w = 0; w < W; w++) {
        real normalised = (x[first + w * C] - mean[group]) * inverse_std[group];
        real gz = g[first + w * C] * (silu ? silu_slope(normalised * weight[c] + bias[c]) : 1);
        sum += gz;
        product += gz * normalised;
    }
    sums[i] = sum;
    products[i] = product;
}

// For each (n, group): the row sums added up for each channel, and the group's means of them times the weight.
extern "C" __global__ void group_gradients(const real* sums, const real* products, const real* weight, real* g_bias,
                                           real* g_weight, real* mean_sum, real* mean_product, int count, int H, int W,
                                           int C, int groups)
{
    int i = THREAD;
    if (i >= count) return;
    int width = C / groups, n = i / groups;
    real sum = 0, product = 0;
    for (int c = i % groups * width; c < (i % groups + 1) * width; c++) {
        real channel_sum = 0, channel_product = 0;
        for (int h = 0; h < H; h++) {
            channel_sum += sums[(n * H + h) * C + c];
            channel_product += products[(n * H + h) * C + c];
        }
        g_bias[n * C + c] = channel_sum;
        g_weight[n * C + c] = channel_product;
        sum += channel_sum * weight[c];
        product += channel_product * weight[c];
    }
    mean_sum[i] = sum / (H * W * width);
    mean_product[i] = product / (H * W * width);
}

// gx = (gz weight - mean of (gz weight) - normalised * mean of (gz weight normalised)) / std, means over the group.
extern "C" __global__ void normalise_gradient(const real* g, const real* x, const real* mean, const real* inverse_std,
                                              const real* weight, const real* bias, const real* mean_sum,
                                              const real* mean_product, real* gx, int count, int pixels, int C,
                                              int groups, int silu)
{
    int i = THREAD;
    if (i >= count) return;
    int c = i % C, group = i / (pixels * C) * groups + c / (C / groups);
    real normalised = (x[i] - mean[group]) * inverse_std[group];
    real gz = g[i] * (silu ? silu_slope(normalised * weight[c] + bias[c]) : 1);
    gx[i] = (gz * weight[c] - mean_sum[group] - normalised * mean_product[group]) * inverse_std[group];
}


// ==== Adam and the average of the weights: each one pass over the flat arrays of optim.py ====

// share1 = 1 - beta1, share2 = 1 - beta2; epsilon and rate with both bias corrections in them; kept = 1 - rate * decay.
extern "C" __global__ void adam(real* p, real* mean, real* square, const real* gradient, int count, real beta1,
                                real share1, real beta2, real share2, real epsilon, real rate, real kept)
{
    int i = THREAD;
    if (i >= count) return;
    real g = gradient[i];
    mean[i] = beta1 * mean[i] + share1 * g;
    square[i] = beta2 * square[i] + share2 * (g * g);
    p[i] = kept * p[i] - rate * (mean[i] / (sqrt(square[i]) + epsilon));
}

extern "C" __global__ void moving_average(real* average, const real* p, int count, real share)
{
    int i = THREAD;
    if (i < count) average[i] += share * (p[i] - average[i]);
}


// ==== random.py's numbers: Philox4x32-10 ====

// Word `which` of the four that the counter (block, sample, step) encrypts to under the key (seed, stream).
__device__ word philox(word block, word sample, word step_low, word step_high, word key0, word key1, int which)
{
    word x[4] = {block, sample, step_low, step_high};
    for (int round = 0; round < 10; round++) {
        unsigned long long p0 = 0xD2511F53ull * x[0], p1 = 0xCD9E8D57ull * x[2];
        x[0] = (word)(p1 >> 32) ^ x[1] ^ key0;
        x[2] = (word)(p0 >> 32) ^ x[3] ^ key1;
        x[1] = (word)p1;
        x[3] = (word)p0;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return x[which];
}

// Number j of a sample, whose words lie four rows of `blocks`: 23 random bits and a half.
__device__ float uniform_entry(int j, int blocks, word sample, word step_low, word step_high, word key0, word key1)
{
    word bits = philox((word)(j % blocks), sample, step_low, step_high, key0, key1, j / blocks) >> 9;
    return ((float)bits + 0.5f) * 1.1920928955078125e-7f;  // 2^-23
}

extern "C" __global__ void uniform(const word* samples, float* numbers, int count, int each, word step_low,
                                   word step_high, word key0, word key1)
{
    int i = THREAD;
    if (i < count)
        numbers[i] = uniform_entry(i % each, (each + 3) / 4, samples[i / each], step_low, step_high, key0, key1);
}

// Box and Muller: a thread for each pair of numbers of a sample, which lie half a sample apart.
extern "C" __global__ void normal(const word* samples, float* numbers, int count, int each, word step_low,
                                  word step_high, word key0, word key1)
{
    int i = THREAD;
    if (i >= count) return;
    int half = (each + 1) / 2, blocks = (half + 1) / 2, j = i % half;
    word sample = samples[i / half];
    float u = uniform_entry(j, blocks, sample, step_low, step_high, key0, key1);
    float v = uniform_entry(half + j, blocks, sample, step_low, step_high, key0, key1);
    float radius = sqrtf(-2.0f * logf(u)), angle = 6.28318530717958648f * v;
    float* row = numbers + i / half * each;
    row[j] = radius * cosf(angle);
    if (half + j < each) row[half + j] = radius * sinf(angle);
}
