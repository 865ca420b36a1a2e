// Compiled once for each instruction set, with DS_ISA its name.
#include "attention.h"
#include "elementwise.h"
#include "matmul.h"

#define DS_TEXT2(x) #x
#define DS_TEXT(x) DS_TEXT2(x)
#define DS_JOIN2(a, b) a##b
#define DS_JOIN(a, b) DS_JOIN2(a, b)

extern const DsSampling DS_JOIN(ds_sampling_, DS_ISA);
extern const DsKernels DS_JOIN(ds_kernels_, DS_ISA);
const DsKernels DS_JOIN(ds_kernels_, DS_ISA) = {
    DS_TEXT(DS_ISA),     DS_ISA::multiply_tile, DS_ISA::dequantise_row, DS_ISA::quantise,
    DS_ISA::rms_norm,    DS_ISA::rotate,        DS_ISA::swiglu,         DS_ISA::store_key,
    DS_ISA::store_value, DS_ISA::attend,        &DS_JOIN(ds_sampling_, DS_ISA),
};
