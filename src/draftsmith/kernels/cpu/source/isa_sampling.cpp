// Compiled once for each instruction set, with DS_ISA its name.
#include "top_ids.h"

#define DS_JOIN2(a, b) a##b
#define DS_JOIN(a, b) DS_JOIN2(a, b)

extern const DsSampling DS_JOIN(ds_sampling_, DS_ISA);
const DsSampling DS_JOIN(ds_sampling_, DS_ISA) = {
    DS_ISA::point, DS_ISA::law, DS_ISA::race, DS_ISA::philox, DS_ISA::has_mass, DS_ISA::draw,
    DS_ISA::top_ids,
};
