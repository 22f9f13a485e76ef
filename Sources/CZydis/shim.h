// Zydis 4 (Debian: libzydis-dev), the x86 instruction decoder, and one function that flattens what it says into a
// plain struct, so that Swift needs neither its unions nor its macros. No policy here.
#ifndef FOTHER_CZYDIS_H
#define FOTHER_CZYDIS_H
#include <Zydis/Zydis.h>
#include <string.h>

// Register numbers are those of the machine encoding: rax 0, rcx 1, rdx 2, rbx 3, rsp 4, rbp 5, rsi 6, rdi 7, r8..r15.
// 0xff: none or not a general-purpose register.
typedef struct fother_instruction {
    uint8_t length;
    uint16_t mnemonic;
    uint8_t flow;            // 0 next, 1 call, 2 jump, 3 conditional jump, 4 return, 5 never continues (ud2, hlt)
    uint8_t indirect;        // flow through a register or memory
    uint8_t branch_offset;   // of the relative branch field; 0: none
    uint8_t branch_size;     // bytes
    int64_t branch_value;
    uint8_t disp_offset;     // of the memory displacement field; 0: none
    uint8_t disp_size;       // bytes
    int64_t disp_value;
    uint8_t rip_relative;    // the displacement is relative to the next instruction
    uint8_t address_only;    // lea: the address is taken, memory is not touched
    uint8_t mem_write;
    uint16_t mem_bytes;      // size of the memory access, 0 for lea
    uint8_t segment;         // 1: fs or gs
    uint8_t base, index, scale;
    uint8_t imm_offset;      // of the first immediate that is not a branch; 0: none
    uint8_t imm_size;
    int64_t imm_value;
    uint8_t destination;     // general-purpose register written by the first operand
    uint8_t source;          // general-purpose register read by the second operand
    uint32_t reads, writes;  // masks of general-purpose registers, hidden operands included
} fother_instruction;

static inline uint8_t fother_gpr(ZydisRegister r) {
    ZydisRegister full = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r);
    if (full < ZYDIS_REGISTER_RAX || full > ZYDIS_REGISTER_R15) return 0xff;
    return (uint8_t)(full - ZYDIS_REGISTER_RAX);
}

static inline uint32_t fother_mask(ZydisRegister r) {
    uint8_t n = fother_gpr(r);
    return n == 0xff ? 0 : (uint32_t)1 << n;
}

// 1 when an instruction was decoded, 0 when the bytes are none.
static inline int fother_decode(const uint8_t *bytes, size_t count, fother_instruction *out) {
    static ZydisDecoder decoder;
    static int ready;
    // Initialising twice writes the same values: harmless when two threads meet here.
    if (!ready) { ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64); ready = 1; }
    ZydisDecodedInstruction i;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    memset(out, 0, sizeof *out);
    out->base = out->index = out->destination = out->source = 0xff;
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes, count, &i, ops))) return 0;
    out->length = i.length;
    out->mnemonic = (uint16_t)i.mnemonic;
    switch (i.meta.category) {
    case ZYDIS_CATEGORY_CALL: out->flow = 1; break;
    case ZYDIS_CATEGORY_UNCOND_BR: out->flow = 2; break;
    case ZYDIS_CATEGORY_COND_BR: out->flow = 3; break;
    case ZYDIS_CATEGORY_RET: out->flow = 4; break;
    default: break;
    }
    if (i.mnemonic == ZYDIS_MNEMONIC_UD2 || i.mnemonic == ZYDIS_MNEMONIC_HLT) out->flow = 5;
    for (int k = 0; k < 2; k++) {
        if (i.raw.imm[k].size == 0) continue;
        if (i.raw.imm[k].is_relative) {
            out->branch_offset = i.raw.imm[k].offset;
            out->branch_size = i.raw.imm[k].size / 8;
            out->branch_value = i.raw.imm[k].value.s;
        } else if (out->imm_offset == 0) {
            out->imm_offset = i.raw.imm[k].offset;
            out->imm_size = i.raw.imm[k].size / 8;
            out->imm_value = i.raw.imm[k].value.s;
        }
    }
    if ((out->flow == 1 || out->flow == 2) && out->branch_offset == 0) out->indirect = 1;
    if (i.raw.disp.size) {
        out->disp_offset = i.raw.disp.offset;
        out->disp_size = i.raw.disp.size / 8;
        out->disp_value = i.raw.disp.value;
    }
    for (int k = 0; k < i.operand_count; k++) {
        const ZydisDecodedOperand *o = &ops[k];
        if (o->type == ZYDIS_OPERAND_TYPE_REGISTER) {
            if (o->actions & ZYDIS_OPERAND_ACTION_MASK_READ) out->reads |= fother_mask(o->reg.value);
            if (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) out->writes |= fother_mask(o->reg.value);
            if (k == 0 && (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)) out->destination = fother_gpr(o->reg.value);
            if (k == 1 && (o->actions & ZYDIS_OPERAND_ACTION_MASK_READ)) out->source = fother_gpr(o->reg.value);
        } else if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
            out->reads |= fother_mask(o->mem.base) | fother_mask(o->mem.index);
            if (o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN) continue;
            out->base = fother_gpr(o->mem.base);
            out->index = fother_gpr(o->mem.index);
            out->scale = o->mem.scale;
            if (o->mem.base == ZYDIS_REGISTER_RIP) out->rip_relative = 1;
            // Relative to the low half of the instruction pointer: no address that could be followed.
            if (o->mem.base == ZYDIS_REGISTER_EIP) return 0;
            if (o->mem.type == ZYDIS_MEMOP_TYPE_AGEN) out->address_only = 1;
            else out->mem_bytes = o->size / 8;
            if (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) out->mem_write = 1;
            if (o->mem.segment == ZYDIS_REGISTER_FS || o->mem.segment == ZYDIS_REGISTER_GS) out->segment = 1;
        }
    }
    // xor r,r and sub r,r read nothing that matters.
    if ((i.mnemonic == ZYDIS_MNEMONIC_XOR || i.mnemonic == ZYDIS_MNEMONIC_SUB) && out->destination != 0xff
        && out->destination == out->source && out->base == 0xff && !out->rip_relative)
        out->reads &= ~((uint32_t)1 << out->destination);
    return 1;
}

static inline uint16_t fother_mnemonic_endbr64(void) { return ZYDIS_MNEMONIC_ENDBR64; }
static inline uint16_t fother_mnemonic_nop(void) { return ZYDIS_MNEMONIC_NOP; }
static inline uint16_t fother_mnemonic_int3(void) { return ZYDIS_MNEMONIC_INT3; }
static inline uint16_t fother_mnemonic_mov(void) { return ZYDIS_MNEMONIC_MOV; }
static inline uint16_t fother_mnemonic_movsxd(void) { return ZYDIS_MNEMONIC_MOVSXD; }
static inline uint16_t fother_mnemonic_add(void) { return ZYDIS_MNEMONIC_ADD; }
static inline uint16_t fother_mnemonic_cmp(void) { return ZYDIS_MNEMONIC_CMP; }
static inline uint16_t fother_mnemonic_sub(void) { return ZYDIS_MNEMONIC_SUB; }
static inline uint16_t fother_mnemonic_lea(void) { return ZYDIS_MNEMONIC_LEA; }
static inline uint16_t fother_mnemonic_push(void) { return ZYDIS_MNEMONIC_PUSH; }

// One line of Intel-syntax text for `bytes` as if loaded at `address`; 1 on success.
static inline int fother_format(const uint8_t *bytes, size_t count, uint64_t address, char *text, size_t room) {
    ZydisDisassembledInstruction d;
    if (!ZYAN_SUCCESS(ZydisDisassembleIntel(ZYDIS_MACHINE_MODE_LONG_64, address, bytes, count, &d))) return 0;
    strncpy(text, d.text, room - 1);
    text[room - 1] = 0;
    return 1;
}
#endif
